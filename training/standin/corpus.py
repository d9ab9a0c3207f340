"""The spoken corpus: for each speaker of the base, shards of sentences as they were said.

Made in any order, by any number of processes, and continued where it stopped: a shard is written whole or not at all.
Each shard carries its texts, so a changed list of sentences makes no shard wrong. Nothing here knows about codes.
"""

from __future__ import annotations

import logging
import random
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.standin.teachers import HELD_OUT, SPEAKERS, Speaker
from training.standin.texts import sentences

logger = logging.getLogger(__name__)

SENTENCES_FILE = "sentences.txt"  # in the work directory, one sentence a line; any list will do
SHARD_SENTENCES = 50
SHARDS = {"slt": 12, "rms": 12, "joe": 24, "alpha": 16, "kumo": 16}
OTHER_SHARDS = {"flite": 4, "espeak": 2, "piper": 4, "kokoro": 5}
HELD_OUT_SHARDS = 1
TEACHERS_BY_SPEED = ("espeak", "flite", "piper", "kokoro")
FULL_SCALE = 32767.0


@dataclass(frozen=True)
class Clip:
    """One sentence as one speaker said it, without silence around it."""

    speaker: str
    text: str
    samples: np.ndarray  # (samples,) int16 at 24 kHz


@dataclass(frozen=True)
class Shard:
    """The `number`th SHARD_SENTENCES sentences of a speaker."""

    speaker: Speaker
    number: int

    def path(self, work: Path) -> Path:
        """Where it lies in the work directory."""
        return work / "corpus" / self.speaker.name / f"{self.number:03d}.npz"

    def sentences(self, every: list[str]) -> list[str]:
        """Which sentences it says; a speaker says each one once before any twice."""
        order = random.Random(self.speaker.name).sample(range(len(every)), len(every))
        first = self.number * SHARD_SENTENCES
        return [every[order[index % len(order)]] for index in range(first, first + SHARD_SENTENCES)]


def shards() -> list[Shard]:
    """Every shard of the corpus: the held-out speakers' first, then by teacher, the quickest first."""
    wanted = [Shard(speaker, n) for speaker in HELD_OUT for n in range(HELD_OUT_SHARDS)]
    every = [
        ((TEACHERS_BY_SPEED.index(speaker.teacher), n / count), Shard(speaker, n))
        for speaker in SPEAKERS
        for count in [SHARDS.get(speaker.name, OTHER_SHARDS[speaker.teacher])]
        for n in range(count)
    ]
    return wanted + [shard for _, shard in sorted(every, key=lambda pair: pair[0])]


def make(work: Path, processes: int) -> None:
    """Says what has not been said yet, of WordNet's examples if no other list of sentences is in `work`."""
    listed = work / SENTENCES_FILE
    if not listed.exists():
        listed.write_text("\n".join(sentences()) + "\n", encoding="utf-8")
    missing = [shard for shard in shards() if not shard.path(work).exists()]
    with ProcessPoolExecutor(processes) as pool:
        for done, shard in enumerate(pool.map(_say, missing, [work] * len(missing)), start=1):
            logger.info("corpus: %s %d, %d of %d", shard.speaker.name, shard.number, done, len(missing))


def _say(shard: Shard, work: Path) -> Shard:
    path = shard.path(work)
    if path.exists():  # another process was faster
        return shard
    every = (work / SENTENCES_FILE).read_text(encoding="utf-8").splitlines()
    texts = shard.sentences(every)
    clips = [(shard.speaker.speak(text) * FULL_SCALE).astype(np.int16) for text in texts]
    write(path, texts, clips)
    return shard


def write(path: Path, texts: list[str], clips: list[np.ndarray]) -> None:
    """Writes one shard: `texts` and their clips, each (samples,) int16."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part.npz")
    np.savez(unfinished, texts=texts, lengths=[len(clip) for clip in clips], samples=np.concatenate(clips))
    unfinished.replace(path)


def read(path: Path) -> list[Clip]:
    """A shard's clips."""
    with np.load(path) as stored:
        clips = np.split(stored["samples"], np.cumsum(stored["lengths"])[:-1])
        texts = [str(text) for text in stored["texts"]]
    return [Clip(path.parent.name, text, samples) for text, samples in zip(texts, clips, strict=True)]
