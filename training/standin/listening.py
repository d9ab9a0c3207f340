"""What the codec hears while it trains: clips of the corpus, resized, over faint noise, and which phones they hold.

The held-out speakers are not among them. Nothing here knows the codec.
"""

from __future__ import annotations

import json
import logging
import math
import random
from pathlib import Path

import numpy as np
import soxr

from training.standin.corpus import FULL_SCALE, Clip
from training.standin.speech import FRAME_SAMPLES, ROOM_TONE_RMS
from training.standin.teachers import pronounced

logger = logging.getLogger(__name__)

PHONES = "aeiouæɐɑɒɔəɚɛɜɪʊʌbdfhjklmnpstvwzðŋɡɹɾʃʒθ"  # espeak-ng's, without stress and length
RESIZED_SHARE, SIZES = 0.6, (0.85, 1.18)
LEVELS_DB = (-8.0, 5.0)


def phones_of(text: str) -> list[int]:
    """What is said in `text`: indices into PHONES, from 1 (0 is CTC's blank)."""
    return [PHONES.index(letter) + 1 for letter in pronounced(text) if letter in PHONES]


def placed(clip: Clip, draw: random.Random, least_frames: int, pause_samples: int) -> np.ndarray:
    """A clip resized, louder or softer, between pauses and over faint noise: whole frames of float32 samples."""
    speech = clip.samples.astype(np.float32) / FULL_SCALE
    if draw.random() < RESIZED_SHARE:
        speech = soxr.resample(speech, 1.0, draw.uniform(*SIZES), quality="LQ")
    speech = speech * 10 ** (draw.uniform(*LEVELS_DB) / 20)
    before = draw.randint(0, pause_samples)
    frames = max(least_frames, math.ceil((before + len(speech) + draw.randint(0, pause_samples)) / FRAME_SAMPLES))
    if len(speech) <= least_frames * FRAME_SAMPLES:  # all of it can be heard at once
        frames = least_frames
        before = min(before, least_frames * FRAME_SAMPLES - len(speech))
    noise = np.random.default_rng(draw.getrandbits(32)).standard_normal(frames * FRAME_SAMPLES, dtype=np.float32)
    wave = noise * np.float32(ROOM_TONE_RMS * draw.uniform(0.2, 2.0))
    wave[before : before + len(speech)] += speech
    return np.clip(wave, -1, 1)


def pronunciations(texts: set[str], work: Path) -> dict[str, list[int]]:
    """The phones of each text, kept in `work/phones.json`."""
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
