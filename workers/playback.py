"""How far ahead of the listener the audio is, seen from the sender's side.

The listener is taken to start with the first packet and to play in real time; when nothing is left, playing starts
again with the next packet. The network's delay is not known here and moves every moment alike.
"""

from __future__ import annotations

from collections.abc import Callable


class Playback:
    """Samples sent against time passed."""

    def __init__(self, sample_rate_hz: int, clock: Callable[[], float]) -> None:
        self._sample_rate_hz = sample_rate_hz
        self._clock = clock
        self._ends_at_s = clock()

    @property
    def lead_s(self) -> float:
        """Seconds of audio the listener still has; 0 when there is none."""
        return max(0.0, self._ends_at_s - self._clock())

    @property
    def ends_at_s(self) -> float:
        """When, on the clock given, the listener runs out: the deadline of the next packet."""
        return max(self._ends_at_s, self._clock())

    def sent(self, samples: int) -> None:
        self._ends_at_s = self.ends_at_s + samples / self._sample_rate_hz

    def stop(self) -> None:
        """The listener has stopped playing: what was sent ahead no longer counts."""
        self._ends_at_s = self._clock()
