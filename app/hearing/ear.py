"""The interface of every speech recogniser, and its result."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Heard:
    """What was said in a recording, empty for no words; `confidence` is 0 to 1, where the recogniser tells it."""

    text: str
    confidence: float | None = None


class Transcriber(Protocol):
    """Transcribes recordings."""

    @property
    def name(self) -> str:
        """As a report names it: `Moonshine tiny-en`."""
        ...

    @property
    def coarse(self) -> bool:
        """Whether its error rate is so high that a short text must be compared by letters, over several clips."""
        ...

    def transcribe(self, path: Path, *, language: str | None = None) -> Heard:
        """The words of an audio file of at most half a minute. Raises CarillonError where they cannot be had."""
        ...


def is_english(language: str) -> bool:
    """Whether a BCP 47 tag is of English: `en`, `en-GB`."""
    return language.partition("-")[0].lower() == "en"
