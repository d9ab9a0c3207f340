"""How far ahead of the listener the audio is, seen from the sender's side.

The listener is taken to start with the first packet and to play in real time; when nothing is left, playing starts
again with the next packet. The network's delay is not known here and moves every moment alike.
"""

from __future__ import annotations

from collections.abc import Callable

HURRIED_LEAD_S = 0.3
"""Below this lead the provisional head is used, and every frame is decoded as soon as it is written."""

CAUGHT_UP_LEAD_S = 0.7
"""With this lead a session has caught up: it is more than what four frames, sent together, give for a moment."""

HURRIED_FRAMES = 24
"""Two seconds of frames, decoded one by one without getting ahead: haste does not help, and costs the others."""


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


class Haste:
    """Whether a session decodes each frame as it is written, for its listener has little left.

    Where the machine is too slow for its sessions, all of them would hurry, and each frame cost more than of a session
    that keeps up. So haste ends with the frames in which it should have helped, until the session has caught up.
    A session that is `patient` never hurries.
    """

    def __init__(self, playback: Playback, *, patient: bool) -> None:
        self._playback = playback
        self._patient = patient
        self._frames = 0
        """Decoded since the session had caught up, or began."""

    @property
    def hurried(self) -> bool:
        lead_s = self._playback.lead_s
        if lead_s >= CAUGHT_UP_LEAD_S:
            self._frames = 0
        return lead_s < HURRIED_LEAD_S and self._frames < HURRIED_FRAMES and not self._patient

    def decoded(self, frames: int) -> None:
        self._frames += frames

    def begin(self) -> None:
        """What follows is spoken after a pause: the listener waits for its first sound."""
        self._frames = 0
