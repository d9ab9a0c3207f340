"""The answer's audio on its way to the listener: held, released, paused, cut off, and counted as it leaves.

A transport pulls 20 ms at a time, at the pace at which they are heard. Audio is mono int16 of 24 kHz. It knows no clock
and no transport: whoever pulls sets the pace.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

RATE_HZ = 24_000
FRAME_SAMPLES = RATE_HZ // 50

AUDIBLE = 330
"""Of 32767, −40 dBFS: the quietest sample that counts as heard. The speech of all our voices is far above it, and the
room tone before it below."""


class Playout:
    """One answer after the other. `heard` is called when the first audible sample of an answer leaves, `over` when all
    of it has left."""

    def __init__(self, *, heard: Callable[[], None], over: Callable[[], None], lead_samples: int = 0) -> None:
        """`lead_samples` are pulled before they are heard."""
        self._heard, self._over = heard, over
        self._lead_samples = lead_samples
        self._audio = bytearray()
        self._released = self._paused = self._ended = False
        self._audible = False
        self._pulled_samples = 0

    @property
    def played_samples(self) -> int:
        """Of this answer, as far as the listener has heard it."""
        return max(0, self._pulled_samples - self._lead_samples)

    def put(self, audio: bytes) -> None:
        self._audio += audio

    def end(self) -> None:
        """No more audio of this answer follows."""
        self._ended = True

    def release(self) -> None:
        self._released = True

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False

    def clear(self) -> None:
        """Drop this answer, and make ready for the next."""
        self._audio.clear()
        self._released = self._paused = self._ended = self._audible = False
        self._pulled_samples = 0

    def pull(self) -> bytes | None:
        """The next 20 ms, filled up with silence where less is at hand; None where nothing is to be heard."""
        if not self._released or self._paused:
            return None
        frame = bytes(self._audio[: 2 * FRAME_SAMPLES])
        if not frame:
            if self._ended:
                self._released = self._ended = False
                self._over()
            return None
        del self._audio[: len(frame)]
        self._pulled_samples += len(frame) // 2
        if not self._audible and np.abs(np.frombuffer(frame, "<i2").astype(np.int32)).max() >= AUDIBLE:
            self._audible = True
            self._heard()
        return frame.ljust(2 * FRAME_SAMPLES, b"\0")
