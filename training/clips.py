"""The clips a LoRA is trained on: read and checked, split into two halves that share no text, and put into batches.

Every order is a pure function of the seed and the epoch, so that an interrupted training goes on exactly where it was.
The module knows token ids; how they came about, and what is computed of them, it does not know.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from app.errors import InvalidRequest
from app.speech.token_layout import TOKENS_PER_FRAME, TokenLayout

SORTED_BATCHES = 8
"""Clips are sorted by length within this many batches: little padding, and other batches every epoch."""


@dataclass(frozen=True)
class Clip:
    """A prompt and the speech that answers it: `ids` is (tokens,) int32.

    `ids[answer_start:answer_stop]` are whole frames of codes and the end of speech.
    """

    name: str
    ids: np.ndarray
    answer_start: int
    answer_stop: int

    @property
    def text(self) -> bytes:
        """What distinguishes the prompts of two clips."""
        return self.ids[: self.answer_start].tobytes()


def read_clips(path: Path, layout: TokenLayout, *, vocabulary_size: int) -> list[Clip]:
    """The clips of a dataset file: `ids` of all clips in a row, `lengths`, `answer_starts` and `names` of each.

    Raises InvalidRequest where there is none, and naming the clip that this model could not have written.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            rows = np.split(stored["ids"].astype(np.int32), np.cumsum(stored["lengths"])[:-1])
            starts, names = stored["answer_starts"].tolist(), stored["names"].tolist()
            rows = list(zip(names, rows[: len(names)], starts, strict=True))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise InvalidRequest(f"{path.name} cannot be read: {error}; prepare the recordings again") from None
    if not rows:
        raise InvalidRequest("the dataset has no clips; see the data report for why each recording was left out")
    return [
        Clip(name, ids, start, _answer_stop(name, ids, start, layout, vocabulary_size)) for name, ids, start in rows
    ]


def _answer_stop(name: str, ids: np.ndarray, start: int, layout: TokenLayout, vocabulary_size: int) -> int:
    """Where the answer ends, its end of speech included. Raises InvalidRequest."""
    if not len(ids) or ids.min() < 0 or ids.max() >= vocabulary_size:
        raise InvalidRequest(f"clip {name}: a token is outside the vocabulary of {vocabulary_size}; prepare it again")
    ends = np.flatnonzero(ids[start:] == layout.end_id)
    frames, rest = divmod(int(ends[0]) if len(ends) else 0, TOKENS_PER_FRAME)
    if start < 1 or not frames or rest:
        raise InvalidRequest(f"clip {name}: its speech is not whole frames and an end of speech; prepare it again")
    stop = start + frames * TOKENS_PER_FRAME
    firsts = layout.speech.audio_token_base + layout.codebook_size * np.arange(TOKENS_PER_FRAME)
    codes = ids[start:stop].reshape(frames, TOKENS_PER_FRAME) - firsts
    if codes.min() < 0 or codes.max() >= layout.codebook_size:
        raise InvalidRequest(f"clip {name}: a code is outside the band of its position; prepare it with this codec")
    return stop + 1


def held_out_split(clips: Sequence[Clip], share: float, seed: int) -> tuple[list[Clip], list[Clip]]:
    """The clips to train on and those held out: at least one each, all clips of a text on one side.

    Raises InvalidRequest where there are not two texts.
    """
    by_text: dict[bytes, list[Clip]] = {}
    for clip in clips:
        by_text.setdefault(clip.text, []).append(clip)
    if len(by_text) < 2:
        raise InvalidRequest(f"the {len(clips)} usable clips say {len(by_text)} different texts; at least 2 are needed")
    texts = list(by_text)
    order = np.random.default_rng(seed).permutation(len(texts))
    held_out: list[Clip] = []
    for number in order[:-1]:
        held_out += by_text[texts[number]]
        if len(held_out) >= share * len(clips):
            break
    chosen = {clip.text for clip in held_out}
    return [clip for clip in clips if clip.text not in chosen], held_out


def epoch_batches(clips: Sequence[Clip], batch_clips: int, *, seed: int, epoch: int) -> list[list[Clip]]:
    """All clips in the batches of one epoch, those of a batch alike in length."""
    generator = np.random.default_rng((seed, epoch))
    shuffled = [clips[number] for number in generator.permutation(len(clips))]
    batches: list[list[Clip]] = []
    for some in _chunks(shuffled, batch_clips * SORTED_BATCHES):
        batches += _chunks(sorted(some, key=lambda clip: len(clip.ids)), batch_clips)
    return [batches[number] for number in generator.permutation(len(batches))]


def micro_batches(clips: Sequence[Clip], max_tokens: int) -> list[list[Clip]]:
    """`clips` by length, in groups of at most `max_tokens` padded tokens; a longer clip goes alone."""
    groups: list[list[Clip]] = []
    for clip in sorted(clips, key=lambda clip: len(clip.ids)):
        if groups and (len(groups[-1]) + 1) * len(clip.ids) <= max_tokens:
            groups[-1].append(clip)
        else:
            groups.append([clip])
    return groups


def _chunks(clips: Sequence[Clip], size: int) -> list[list[Clip]]:
    return [list(clips[first : first + size]) for first in range(0, len(clips), size)]
