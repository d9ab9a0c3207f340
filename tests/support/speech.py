"""Speech for tests: a person who reads the opening of a novel, from the recogniser's wheel, and a spoken consent."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import soundfile

OPENING = (
    "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness, "
    "it was the epoch of belief, it was the epoch of incredulity, it was the season of Light, it was the season of "
    "Darkness, it was the spring of hope, it was the winter of despair, we had everything before us, we had nothing "
    "before us, we were all going direct to Heaven, we were all going direct the other way"
)
FIRST_WORDS, FIRST_S = "It was the best of times, it was the worst of times", 4.6
OPENING_S = 28.7
"""A person takes so long to read it, from the beginning of the file."""


def novel() -> Path:
    """44 s of a reading of A Tale of Two Cities, mono at 48 kHz."""
    from moonshine_voice import get_assets_path

    return Path(get_assets_path()) / "two_cities.wav"


def opening() -> tuple[np.ndarray, int]:
    """The samples of OPENING, (samples,) float32, as loud as a person should record, and their rate."""
    samples, rate_hz = soundfile.read(novel(), dtype="float32")
    samples = samples[: round(OPENING_S * rate_hz)]
    return samples * np.float32(0.7 / np.abs(samples).max()), rate_hz


CONSENT_PARTS = Path(__file__).with_name("consent")
"""flite's `slt` (BSD) speaking the phrase up to the number, and each digit."""


def spoken_consent(number: str = "") -> bytes:
    """A WAV of the consent phrase with that number."""
    parts = []
    for name in ("phrase", *number):
        samples, _ = soundfile.read(CONSENT_PARTS / f"{name}.flac", dtype="float32")
        loud = np.flatnonzero(np.abs(samples) > 0.01)
        parts += [samples[max(loud[0] - 320, 0) : loud[-1] + 320], np.zeros(800, np.float32)]
    file = io.BytesIO()
    soundfile.write(file, np.concatenate(parts), 16_000, format="WAV")
    return file.getvalue()
