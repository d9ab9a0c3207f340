"""What a microphone sends, at whatever rate, as the mono int16 of 16 kHz that the detector and the recogniser hear."""

from __future__ import annotations

import numpy as np
import soxr

from app.talk.speech_detector import RATE_HZ

LEAST_RATE_HZ, MOST_RATE_HZ = 8_000, 96_000


class Microphone:
    """One stream; a filter's state goes on from packet to packet."""

    def __init__(self, rate_hz: int) -> None:
        self._stream = soxr.ResampleStream(rate_hz, RATE_HZ, 1, dtype="int16", quality="MQ")

    def take(self, samples: np.ndarray) -> np.ndarray:
        """(samples,) int16 in and out."""
        return self._stream.resample_chunk(samples)
