"""What the codec hears while it trains: clips of the corpus, resized, over faint noise, with what was said in them.

The held-out speakers are not among them. Nothing here knows the codec.
"""

from __future__ import annotations

import json
import logging
import random
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr
import torch
from torch import Tensor

from training.standin.corpus import FULL_SCALE, Clip, said
from training.standin.speech import FRAME_SAMPLES, ROOM_TONE_RMS
from training.standin.teachers import pronounced

logger = logging.getLogger(__name__)

PHONES = "aeiouæɐɑɒɔəɚɛɜɪʊʌbdfhjklmnpstvwzðŋɡɹɾʃʒθ"  # espeak-ng's, without stress and length
SIZES = (0.85, 1.18)
LEVELS_DB = (-8.0, 5.0)


def phones_of(text: str) -> list[int]:
    """What is said in `text`: indices into PHONES, from 1 (0 is CTC's blank)."""
    return [PHONES.index(letter) + 1 for letter in pronounced(text) if letter in PHONES]


@dataclass(frozen=True)
class Heard:
    """A batch of waveforms (batch, 1, samples) float32; per row its phones, or none where it does not hold them all."""

    waves: Tensor
    phones: list[list[int]]


@dataclass(frozen=True)
class Listening:
    """Draws batches of `frames` frames from the corpus; every speaker is as likely as every other."""

    clips: dict[str, list[Clip]]  # by speaker
    phones: dict[str, list[int]]  # by text
    frames: int

    @classmethod
    def of(cls, work: Path, frames: int) -> Listening:
        """Everything said by now; pronunciations are kept in `work/phones.json`."""
        clips: dict[str, list[Clip]] = defaultdict(list)
        for clip in said(work):
            clips[clip.speaker].append(clip)
        if not clips:
            raise ValueError(f"{work} holds no speech yet; run the stage `corpus` first")
        return cls(
            dict(clips), _pronunciations({clip.text for every in clips.values() for clip in every}, work), frames
        )

    def batch(self, seed: str, size: int) -> Heard:
        """`size` rows that depend on `seed` and on what the corpus holds."""
        draw = random.Random(seed)
        rows = [self._row(draw) for _ in range(size)]
        return Heard(torch.from_numpy(np.stack([wave for wave, _ in rows]))[:, None], [phones for _, phones in rows])

    def _row(self, draw: random.Random) -> tuple[np.ndarray, list[int]]:
        clip = draw.choice(self.clips[draw.choice(sorted(self.clips))])
        speech = clip.samples.astype(np.float32) / FULL_SCALE
        if draw.random() < 0.6:
            speech = soxr.resample(speech, 1.0, draw.uniform(*SIZES), quality="LQ")
        speech = speech * 10 ** (draw.uniform(*LEVELS_DB) / 20)
        length = self.frames * FRAME_SAMPLES
        noise = np.random.default_rng(draw.getrandbits(32)).standard_normal(length, dtype=np.float32)
        wave = noise * (ROOM_TONE_RMS * draw.uniform(0.2, 2.0))
        offset = draw.randint(min(0, length - len(speech)), max(0, length - len(speech)))
        if offset >= 0:
            wave[offset : offset + len(speech)] += speech[: length - offset]
        else:
            wave += speech[-offset : length - offset]
        whole = len(speech) <= length
        return np.clip(wave, -1, 1).astype(np.float32), self.phones[clip.text] if whole else []


def _pronunciations(texts: set[str], work: Path) -> dict[str, list[int]]:
    path = work / "phones.json"
    known: dict[str, list[int]] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    missing = texts - known.keys()
    if missing:
        logger.info("pronouncing %d sentences", len(missing))
        known |= {text: phones_of(text) for text in sorted(missing)}
        unfinished = path.with_suffix(".part")
        unfinished.write_text(json.dumps(known), encoding="utf-8")
        unfinished.replace(path)
    return known
