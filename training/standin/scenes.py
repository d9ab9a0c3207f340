"""Clips as the codec's front half hears them, computed once, so that the rest of the encoder learns many times faster.

The front (the first convolution and two strided blocks, 24 kHz to 375 Hz) is most of the arithmetic. It knows
sound from an earlier codec and is not trained further; its output on every clip is kept in the work directory.
"""

from __future__ import annotations

import logging
import random
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from training.standin.corpus import FULL_SCALE, Shard, read, shards
from training.standin.listening import placed, pronunciations
from training.standin.speech import FRAME_SAMPLES
from training.standin.teachers import HELD_OUT

logger = logging.getLogger(__name__)

SHARDS_OF_A_VOICE, SHARDS_OF_A_COPY = 6, 1  # heard; every clip may be resized besides
PAUSE_SAMPLES = 10_000  # at most, on either side of the speech


@dataclass(frozen=True)
class Scene:
    """A clip among pauses and noise, of whole frames: (samples,) int16, and its (width, samples / stride) float16."""

    text: str
    wave: np.ndarray
    front: np.ndarray


@dataclass(frozen=True)
class SceneBatch:
    """(batch, samples) float32 waveforms, their (batch, width, steps) fronts, and per row its phones or none."""

    waves: Tensor
    fronts: Tensor
    phones: list[list[int]]


@dataclass(frozen=True)
class Scenes:
    """Draws batches of `frames` frames; every speaker is as likely as every other."""

    by_speaker: dict[str, list[Scene]]
    phones: dict[str, list[int]]
    frames: int

    @classmethod
    def of(cls, work: Path, front: nn.Module, frames: int) -> Scenes:
        """All that was said by now; scenes are made where they are missing, and kept in `work/scenes`."""
        by_speaker: dict[str, list[Scene]] = defaultdict(list)
        for shard in shards():
            most = SHARDS_OF_A_VOICE if shard.speaker.size == 1 else SHARDS_OF_A_COPY
            if shard.speaker not in HELD_OUT and shard.number < most and shard.path(work).exists():
                by_speaker[shard.speaker.name] += _scenes(shard, work, front, frames)
        if not by_speaker:
            raise ValueError(f"{work} holds no speech yet; run the stage `corpus` first")
        texts = {scene.text for scenes in by_speaker.values() for scene in scenes}
        return cls(dict(by_speaker), pronunciations(texts, work), frames)

    def batch(self, seed: str, size: int) -> SceneBatch:
        """`size` rows that depend on `seed` and on what was said by now."""
        draw = random.Random(seed)
        waves, fronts, phones = [], [], []
        for _ in range(size):
            scene = draw.choice(self.by_speaker[draw.choice(sorted(self.by_speaker))])
            every = len(scene.wave) // FRAME_SAMPLES
            first = draw.randint(0, every - self.frames)
            steps = scene.front.shape[1] // every
            waves.append(scene.wave[first * FRAME_SAMPLES :][: self.frames * FRAME_SAMPLES])
            fronts.append(scene.front[:, first * steps :][:, : self.frames * steps])
            phones.append(self.phones[scene.text] if every == self.frames else [])
        return SceneBatch(
            torch.from_numpy(np.stack(waves).astype(np.float32) / FULL_SCALE),
            torch.from_numpy(np.stack(fronts).astype(np.float32)),
            phones,
        )


@torch.no_grad()
def _scenes(shard: Shard, work: Path, front: nn.Module, frames: int) -> list[Scene]:
    path = work / "scenes" / f"{shard.speaker.name}-{shard.number:03d}.npz"
    if not path.exists():
        draw = random.Random(path.stem)
        path.parent.mkdir(exist_ok=True)
        clips = read(shard.path(work))
        waves, fronts = [], []
        for clip in clips:
            wave = placed(clip, draw, frames, PAUSE_SAMPLES)
            heard = front(torch.from_numpy(wave)[None, None].to(next(front.parameters()).device))
            waves.append((wave * FULL_SCALE).astype(np.int16))
            fronts.append(heard[0].half().cpu().numpy())
        unfinished = path.with_suffix(".part.npz")
        np.savez(
            unfinished,
            texts=[clip.text for clip in clips],
            lengths=[len(wave) for wave in waves],
            waves=np.concatenate(waves),
            fronts=np.concatenate(fronts, axis=1),
        )
        unfinished.replace(path)
        logger.info("scenes: %s", path.stem)
    with np.load(path) as stored:
        lengths = stored["lengths"]
        waves = np.split(stored["waves"], np.cumsum(lengths)[:-1])
        stride = len(stored["waves"]) // stored["fronts"].shape[1]
        fronts = np.split(stored["fronts"], np.cumsum(lengths // stride)[:-1], axis=1)
        texts = [str(text) for text in stored["texts"]]
    return [Scene(text, wave, heard) for text, wave, heard in zip(texts, waves, fronts, strict=True)]
