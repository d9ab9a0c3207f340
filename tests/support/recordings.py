"""Recordings as people send them: small files of a voice-like tone."""

from __future__ import annotations

import io

import numpy as np
import soundfile


def recording(seconds: float = 1.0, *, format: str = "WAV", sample_rate_hz: int = 24_000) -> bytes:
    """A mono file of a low, swelling tone."""
    time_s = np.arange(round(seconds * sample_rate_hz)) / sample_rate_hz
    wave = 0.3 * np.sin(2 * np.pi * 140 * time_s) * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * time_s))
    file = io.BytesIO()
    soundfile.write(file, wave.astype(np.float32), sample_rate_hz, format=format)
    return file.getvalue()
