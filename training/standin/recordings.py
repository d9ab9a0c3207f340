"""What the codec hears while it trains: the announcers' words on the frame grid, and varied speech off it.

Both are rendered once into the work directory as int16 arrays. The held-out voices are not among them.
"""

from __future__ import annotations

import random
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.standin.sentences import TAGS, Piece, SentenceSampler, vocabulary
from training.standin.speech import (
    BUILT_IN_VOICES,
    FLITE_VOICES,
    FRAME_SAMPLES,
    ROOM_TONE_RMS,
    Announcer,
    espeak,
    flite,
    levelled,
    room_tone,
)

FULL_SCALE = 32767.0
VARIED_FLITE = ("slt", "rms", "kal16")
VARIED_ESPEAK = (
    "en",
    *(f"en+m{n}" for n in range(1, 8)),
    *(f"en+f{n}" for n in range(1, 5)),
    "en-us",
    "en-gb-scotland",
)


def announced_pieces() -> list[Piece]:
    """Everything an announcer can say: each word, and each tag."""
    return [Piece(word) for word in (*vocabulary(), *TAGS)]


def _announced(voice: str) -> list[np.ndarray]:
    announcer = Announcer(FLITE_VOICES[voice])
    return [(announcer.piece(piece) * FULL_SCALE).astype(np.int16) for piece in announced_pieces()]


def announced(voice: str, work: Path) -> dict[Piece, np.ndarray]:
    """Every piece of a built-in voice as float32 waveforms of whole frames; rendered once, then read from `work`."""
    path = work / f"announced-{voice}.npz"
    pieces = announced_pieces()
    if not path.exists():
        clips = _announced(voice)
        np.savez(path, samples=np.concatenate(clips), lengths=np.array([len(clip) for clip in clips]))
    stored = np.load(path)
    if len(stored["lengths"]) != len(pieces):
        raise ValueError(f"{path} was rendered from another words.txt; remove it to render again")
    clips = np.split(stored["samples"], np.cumsum(stored["lengths"])[:-1])
    return {piece: clip.astype(np.float32) / FULL_SCALE for piece, clip in zip(pieces, clips, strict=True)}


def _varied(seed: int) -> np.ndarray:
    """One natural sentence by a speaker drawn from `seed`, over faint noise: (samples,) int16."""
    draw = random.Random(seed)
    sampler = SentenceSampler(tuple(vocabulary()), tag_share=0.0)
    text = sampler.text(draw, 14)
    if seed % 2:
        speech = flite(text, draw.choice(VARIED_FLITE), draw.uniform(0.75, 1.2))
    else:
        speech = espeak(text, draw.choice(VARIED_ESPEAK), draw.randint(25, 80), draw.randint(120, 200))
    speech = levelled(speech, rms=draw.uniform(0.04, 0.12))
    noise = np.random.default_rng(seed).standard_normal(len(speech)) * ROOM_TONE_RMS * draw.uniform(0.2, 2.0)
    return ((speech + noise).clip(-1, 1) * FULL_SCALE).astype(np.int16)


def varied(count: int, work: Path) -> np.ndarray:
    """`count` sentences of many speakers end to end: (samples,) int16; rendered once, then read from `work`."""
    path = work / "varied.npy"
    if not path.exists():
        with ProcessPoolExecutor(2) as pool:
            np.save(path, np.concatenate(list(pool.map(_varied, range(count), chunksize=20))))
    return np.load(path)


@dataclass(frozen=True)
class Crops:
    """Draws training crops of `frames` frames: announcers on the frame grid, varied speech at any offset."""

    announcers: list[list[np.ndarray]]  # per voice: float32 clips of whole frames
    varied: np.ndarray  # (samples,) int16
    frames: int = 6
    varied_share: float = 0.35

    def crop(self, draw: random.Random) -> np.ndarray:
        """One crop: (frames * FRAME_SAMPLES,) float32."""
        length = self.frames * FRAME_SAMPLES
        if draw.random() < self.varied_share:
            start = draw.randrange(len(self.varied) - length)
            return self.varied[start : start + length].astype(np.float32) / FULL_SCALE
        clips = draw.choice(self.announcers)
        spoken: list[np.ndarray] = []
        while sum(map(len, spoken)) < 2 * length:
            pause = draw.random() < 0.2
            spoken.append(room_tone(draw.randint(1, 4)) if pause else draw.choice(clips))
        start = draw.randrange(self.frames) * FRAME_SAMPLES
        return np.concatenate(spoken)[start : start + length]


def training_crops(work: Path, varied_count: int = 1400) -> Crops:
    """Everything the codec trains on, rendered on first use (about 4 minutes on 2 cores)."""
    with ProcessPoolExecutor(2) as pool:
        list(pool.map(announced, BUILT_IN_VOICES, [work] * len(BUILT_IN_VOICES)))
    clips = [list(announced(voice, work).values()) for voice in BUILT_IN_VOICES]
    return Crops(announcers=clips, varied=varied(varied_count, work))
