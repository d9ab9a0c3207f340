"""Speech for tests: a person who reads the opening of a novel, as it lies in the recogniser's wheel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

OPENING = (
    "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness, "
    "it was the epoch of belief, it was the epoch of incredulity, it was the season of Light, it was the season of "
    "Darkness, it was the spring of hope, it was the winter of despair, we had everything before us, we had nothing "
    "before us, we were all going direct to Heaven, we were all going direct the other way"
)
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
