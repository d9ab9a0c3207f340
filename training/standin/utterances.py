"""What the language model learns from: sentences as codes, with the phones that were said and when.

Each speaker's shards are made in any order and continued where they stopped. A built-in voice speaks on the grid; the
other speakers of the base speak in their own time, as recordings to clone do.
"""

from __future__ import annotations

import logging
import re
import subprocess
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import soxr
import torch

from training.standin.corpus import FULL_SCALE, SENTENCES_FILE, Clip, Shard
from training.standin.corpus import read as read_corpus
from training.standin.frames import interleaved
from training.standin.grid import Spoken, as_said, on_grid
from training.standin.latents import LatentSpace
from training.standin.speech import SAMPLE_RATE_HZ, framed, levelled
from training.standin.spelling import Phones, marked, read, stored_rules
from training.standin.teachers import SPEAKERS, Speaker
from training.standin.timing import PAUSE, Said, timed_flite, words_in

logger = logging.getLogger(__name__)

PITCH_SPREAD_HZ = 12.0  # of the built-in voices: some melody
_WORD_AND_MARK = re.compile(r"([a-z']+)([^a-z']*)")
_MARKS = re.compile(r"[.,?!;:]")


@dataclass(frozen=True)
class Utterance:
    """One sentence. `words` are the phones said, `reading` those its spelling tells, `marks` what stands after each.

    `frames`, `starts` and `ends` are those of `grid.Spoken`; `phones` is (n, 4), the number of the phone that each step
    says among all of `words`, or -1.
    """

    words: tuple[Phones, ...]
    reading: tuple[Phones, ...]
    marks: tuple[str, ...]
    frames: np.ndarray
    phones: np.ndarray
    starts: np.ndarray
    ends: np.ndarray

    @property
    def timed(self) -> bool:
        """Whether it is known when what is said; if not, it can only be used whole."""
        return bool((self.phones >= 0).any())


def utterance(text: str, said: Said, space: LatentSpace, gridded: bool) -> Utterance | None:
    """What was `said` of `text`; None where it does not fit."""
    reading, marks = _read(text)
    spans = words_in(said.segments, reading)
    if spans is None:
        return None
    spoken = (on_grid if gridded else as_said)(said, spans, space)
    return _of_phones(spoken, said, spans, reading, marks)


def untimed(clip: Clip, space: LatentSpace) -> Utterance | None:
    """A sentence of a teacher that does not tell when it says what: only whole, and read as it is spelt."""
    reading, marks = _read(clip.text)
    if not reading:
        return None
    frames = interleaved(space.codes(space.of(torch.from_numpy(framed(clip.samples / np.float32(FULL_SCALE)))[None])))
    count = len(reading)
    phones = np.full((len(frames), 4), -1)
    return Utterance(reading, reading, marks, frames, phones, np.zeros(count + 1, int), np.full(count, len(frames)))


def _read(text: str) -> tuple[tuple[Phones, ...], tuple[str, ...]]:
    """Each word's phones, as the tokenizer reads them, and the mark after it."""
    spelt = [(word.strip("'"), mark) for word, mark in _WORD_AND_MARK.findall(text.lower()) if word.strip("'")]
    reading = tuple(reading_of_word(word) for word, _ in spelt)
    return reading, tuple("".join(_MARKS.findall(mark)[:1]) for _, mark in spelt)


def _of_phones(
    spoken: Spoken, said: Said, spans: list[tuple[int, int]], reading: tuple[Phones, ...], marks: tuple[str, ...]
) -> Utterance:
    words = tuple(
        tuple(segment.phone for segment in said.segments[first:after] if segment.phone != PAUSE)
        for first, after in spans
    )
    numbers = np.cumsum([segment.phone != PAUSE for segment in said.segments]) - 1
    phones = np.where(spoken.segments < 0, -1, numbers[spoken.segments.clip(0)])
    return Utterance(words, reading, marks, spoken.frames, phones, spoken.starts, spoken.ends)


@cache
def reading_of_word(word: str) -> Phones:
    """Its phones, as the tokenizer reads them."""
    return read(marked(word), _rules())


@cache
def _rules() -> Mapping[str, Phones]:
    return stored_rules()


def spoken_by(speaker: Speaker, text: str, gridded: bool) -> Said:
    """`text` as a flite speaker says it, levelled, with its segments."""
    spread_hz = PITCH_SPREAD_HZ if gridded else None
    said = timed_flite(text, speaker.voice, 1 / (speaker.tempo * speaker.size), spread_hz)
    resized = soxr.resample(said.samples, SAMPLE_RATE_HZ / speaker.size, SAMPLE_RATE_HZ).astype(np.float32)
    return said.slower(speaker.size, levelled(resized))


def path_of(shard: Shard, work: Path) -> Path:
    """Where a shard's utterances lie."""
    return work / "utterances" / shard.speaker.name / f"{shard.number:03d}.npz"


def make(work: Path, wanted: Iterable[tuple[Shard, bool]], processes: int) -> None:
    """Says and encodes what has not been, shard by shard; with each whether it is on the grid."""
    missing = [(shard, gridded) for shard, gridded in wanted if not path_of(shard, work).exists()]
    with ProcessPoolExecutor(processes) as pool:
        for done, (shard, _) in enumerate(pool.map(_make, missing, [work] * len(missing)), start=1):
            logger.info("utterances: %s %d, %d of %d", shard.speaker.name, shard.number, done, len(missing))


def _make(wanted: tuple[Shard, bool], work: Path) -> tuple[Shard, bool]:
    torch.set_num_threads(1)
    shard, gridded = wanted
    space = LatentSpace.load(work / "latents.pt")
    every = shard.sentences((work / SENTENCES_FILE).read_text(encoding="utf-8").splitlines())
    if shard.speaker.teacher != "flite":
        found = [untimed(clip, space) for clip in read_corpus(shard.path(work))]
    else:
        found = []
        for text in every:
            try:
                found.append(utterance(text, spoken_by(shard.speaker, text, gridded), space, gridded))
            except (subprocess.CalledProcessError, ValueError):
                continue  # flite fails on a few sentences
    write(path_of(shard, work), [one for one in found if one is not None])
    return wanted


def write(path: Path, utterances: list[Utterance]) -> None:
    """Writes a shard, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part.npz")
    np.savez(
        unfinished,
        words=["|".join(" ".join(word) for word in one.words) for one in utterances],
        reading=["|".join(" ".join(word) for word in one.reading) for one in utterances],
        marks=["|".join(one.marks) for one in utterances],
        lengths=[len(one.frames) for one in utterances],
        counts=[len(one.words) for one in utterances],
        frames=np.concatenate([one.frames for one in utterances]).astype(np.int16),
        phones=np.concatenate([one.phones for one in utterances]).astype(np.int16),
        starts=np.concatenate([one.starts for one in utterances]).astype(np.int16),
        ends=np.concatenate([one.ends for one in utterances]).astype(np.int16),
    )
    unfinished.replace(path)


def stored(path: Path) -> list[Utterance]:
    """A shard's utterances."""
    with np.load(path) as kept:
        fields = {name: kept[name] for name in kept.files}
    lengths, counts = fields["lengths"], fields["counts"]
    arrays = [
        np.split(fields[name].astype(np.int64), np.cumsum(sizes)[:-1])
        for name, sizes in (("frames", lengths), ("phones", lengths), ("starts", counts + 1), ("ends", counts))
    ]
    told = [
        [tuple(tuple(word.split()) for word in str(line).split("|")) for line in fields[name]]
        for name in ("words", "reading")
    ]
    marks = [tuple(str(line).split("|")) for line in fields["marks"]]
    return [Utterance(*parts) for parts in zip(*told, marks, *arrays, strict=True)]


def flite_speakers() -> list[Speaker]:
    """Those of the base who tell when they say what."""
    return [speaker for speaker in SPEAKERS if speaker.teacher == "flite"]
