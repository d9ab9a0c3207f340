"""What a microphone sends, at whatever rate, as the mono int16 of 16 kHz that the detector and the recogniser hear;
and when it was spoken, though it arrives in bursts."""

from __future__ import annotations

import numpy as np
import soxr

from app.talk.speech_detector import RATE_HZ

LEAST_RATE_HZ, MOST_RATE_HZ = 8_000, 96_000


MOST_LATE_S = 0.2
"""Audio that comes later than this, after the audio before it, was not sent for a while."""
FORGETTING = 0.002
"""By which the delay that was assumed is forgotten with each window: two clocks never run alike."""


class SpokenClock:
    """When a stream's audio was spoken: each window follows the one before it, and none comes before it is spoken.

    A network or a busy machine holds packets up and hands over several at once; by the times of their arrival a word
    would be a pause and a click.
    """

    def __init__(self) -> None:
        self._spoken_at: float | None = None

    def window(self, now: float, length_s: float) -> float:
        """The end of a window that has arrived at `now`, on the clock of `now`."""
        if self._spoken_at is None:
            self._spoken_at = now
        else:
            follows = self._spoken_at + length_s
            follows += FORGETTING * (now - follows)
            self._spoken_at = min(now, max(follows, now - MOST_LATE_S))
        return self._spoken_at


BURST_S = 3.0
"""A network may hold so much back and hand it over at once."""


class RealTime:
    """Lets through what was spoken as time passes: a client that sends faster is heard in part."""

    def __init__(self) -> None:
        self._left_s, self._asked_at = BURST_S, 0.0

    def admits(self, now: float, length_s: float) -> bool:
        """Whether audio of this length is taken at `now`."""
        self._left_s = min(BURST_S, self._left_s + now - self._asked_at)
        self._asked_at = now
        if length_s > self._left_s:
            return False
        self._left_s -= length_s
        return True


class Microphone:
    """One stream; a filter's state goes on from packet to packet."""

    def __init__(self, rate_hz: int) -> None:
        self._stream = soxr.ResampleStream(rate_hz, RATE_HZ, 1, dtype="int16", quality="MQ")

    def take(self, samples: np.ndarray) -> np.ndarray:
        """(samples,) int16 in and out."""
        return self._stream.resample_chunk(samples)
