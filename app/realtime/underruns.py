"""Detects underruns that are the server's: audio came late although the text was there.

The listener is taken to begin `PREBUFFER_S` after the first packet, as players do, and to play in real time. A gap
counts from the moment it runs dry, if the worker had begun the chunk by then; a pause of the text's source is no
underrun. What the network between front door and client adds is not known here.
"""

from __future__ import annotations

from collections.abc import Callable

PREBUFFER_S = 0.1
"""What players hold at least before they begin; `carillon bench speech` reports 0, 100 and 200 ms."""


class Underruns:
    """One session's, in number and in seconds."""

    def __init__(self, sample_rate_hz: int, clock: Callable[[], float]) -> None:
        self.count = 0
        self.seconds = 0.0
        self._sample_rate_hz = sample_rate_hz
        self._clock = clock
        self._ends_at: float | None = None
        """When the listener has played what it has; None while it waits for its first packet."""
        self._owed_since: float | None = None
        """Since when a chunk is being spoken; None between two of them."""

    def begun(self) -> None:
        """A chunk is being spoken."""
        if self._owed_since is None:
            self._owed_since = self._clock()

    def ended(self) -> None:
        """All of the chunk has come."""
        self._owed_since = None

    def received(self, samples: int) -> None:
        """Audio has come."""
        now = self._clock()
        if self._ends_at is None:
            self._ends_at = now + PREBUFFER_S
        elif self._owed_since is not None and self._owed_since < self._ends_at < now:
            self.count += 1
            self.seconds += now - self._ends_at
        self._ends_at = max(self._ends_at, now) + samples / self._sample_rate_hz

    def stopped(self) -> None:
        """The listener plays nothing any more, and begins again with the next packet."""
        self._ends_at = self._owed_since = None
