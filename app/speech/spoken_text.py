"""Which words were played, when all that is known is up to which sample the audio was."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

READING_CHARS_PER_S = 14
"""As English is read."""


class Chunk(Protocol):
    """A text and its samples so far, `[start_sample, end_sample)`; `whole` once there are all of them."""

    @property
    def text(self) -> str: ...
    @property
    def start_sample(self) -> int: ...
    @property
    def end_sample(self) -> int: ...
    @property
    def whole(self) -> bool: ...


def played_text(chunks: Iterable[Chunk], played_samples: int, *, sample_rate_hz: int = 24_000) -> str:
    """The text whose audio lies before `played_samples`; a chunk played in part counts by whole words, pro rata.

    A chunk still being spoken has no known length: it is taken to be at the pace of those that are whole, or at
    `READING_CHARS_PER_S`.
    """
    chunks = list(chunks)
    paced = [chunk for chunk in chunks if chunk.whole and chunk.end_sample > chunk.start_sample]
    samples = sum(chunk.end_sample - chunk.start_sample for chunk in paced)
    samples_per_char = (
        samples / sum(len(chunk.text) for chunk in paced) if samples else sample_rate_hz / READING_CHARS_PER_S
    )
    parts: list[str] = []
    for chunk in chunks:
        length = chunk.end_sample - chunk.start_sample
        if not chunk.whole:
            length = max(length, round(samples_per_char * len(chunk.text)))
        share = (played_samples - chunk.start_sample) / length if length else 0.0
        if share >= 1:
            parts.append(chunk.text)
        elif share > 0:
            words = chunk.text.split()
            parts.append(" ".join(words[: int(share * len(words))]))
    return " ".join(part for part in parts if part)
