"""What the codec hears while it trains: clips of the corpus, resized, louder or softer, among pauses over faint noise.

The held-out speakers are not among them. Nothing here knows the codec.
"""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr
import torch
from torch import Tensor

from training.standin.corpus import FULL_SCALE, read, shards
from training.standin.speech import FRAME_SAMPLES, ROOM_TONE_RMS
from training.standin.teachers import HELD_OUT, SPEAKERS

SHARDS_HEARD = 4  # of each speaker; clips may be resized besides
RESIZED_SHARE, SIZES = 0.4, (0.88, 1.14)
LEVELS_DB = (-6.0, 4.0)
NOISE_LEVELS = (0.2, 2.0)  # times the room tone's
PAUSE_SAMPLES = 7000  # at most, on either side of the speech
WEIGHTS = {"espeak": 0.4, "flite": 1.0, "piper": 2.0, "kokoro": 2.0}  # how often a teacher's speakers are heard
BUILT_IN, BUILT_IN_WEIGHT = ("slt", "rms"), 2.0


@dataclass(frozen=True)
class Heard:
    """(batch, samples) float32 waveforms: the `speech` alone, and `noisy`, with what a room adds."""

    speech: Tensor
    noisy: Tensor


@dataclass(frozen=True)
class Listening:
    """Draws crops of `frames` frames from the clips of each speaker, (samples,) int16."""

    by_speaker: dict[str, list[np.ndarray]]
    frames: int

    @classmethod
    def to(cls, work: Path, frames: int) -> Listening:
        """All that was said by now. Raises ValueError when that is nothing."""
        by_speaker: dict[str, list[np.ndarray]] = defaultdict(list)
        for shard in shards():
            if shard.speaker not in HELD_OUT and shard.number < SHARDS_HEARD and shard.path(work).exists():
                by_speaker[shard.speaker.name] += [clip.samples for clip in read(shard.path(work))]
        if not by_speaker:
            raise ValueError(f"{work} holds no speech yet; run the stage `corpus` first")
        return cls(dict(by_speaker), frames)

    def batch(self, seed: str, size: int) -> Heard:
        """`size` rows that depend on `seed` and on what was said by now."""
        draw = random.Random(seed)
        speakers = [speaker for speaker in SPEAKERS if speaker.name in self.by_speaker]
        weights = [BUILT_IN_WEIGHT if speaker.name in BUILT_IN else WEIGHTS[speaker.teacher] for speaker in speakers]
        names = [speaker.name for speaker in draw.choices(speakers, weights, k=size)]
        crops = [self._crop(draw.choice(self.by_speaker[name]), draw) for name in names]
        speech, noise = (torch.from_numpy(np.stack(parts)) for parts in zip(*crops, strict=True))
        return Heard(speech, speech + noise)

    def _crop(self, clip: np.ndarray, draw: random.Random) -> tuple[np.ndarray, np.ndarray]:
        speech = clip.astype(np.float32) / FULL_SCALE * 10 ** (draw.uniform(*LEVELS_DB) / 20)
        if draw.random() < RESIZED_SHARE:
            speech = soxr.resample(speech, 1.0, draw.uniform(*SIZES), quality="LQ").astype(np.float32)
        samples = self.frames * FRAME_SAMPLES
        speech = np.pad(speech, (draw.randint(0, PAUSE_SAMPLES), draw.randint(0, PAUSE_SAMPLES)))
        speech = np.pad(speech, (0, max(0, samples - len(speech))))
        first = draw.randint(0, len(speech) - samples)
        noise = np.random.default_rng(draw.getrandbits(32)).standard_normal(samples, dtype=np.float32)
        level = np.float32(ROOM_TONE_RMS * draw.uniform(*NOISE_LEVELS))
        return np.clip(speech[first : first + samples], -1, 1).astype(np.float32), noise * level
