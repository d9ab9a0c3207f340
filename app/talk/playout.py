"""The answer's audio on its way to the listener: held, released, paused, cut off, and counted as it leaves.

A transport pulls 20 ms at a time, at the pace at which they are heard. Audio is mono int16 of 24 kHz. Silence before
the first sound of an answer is left out, but for a breath. It knows no clock: the transport sets the pace.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

RATE_HZ = 24_000
FRAME_SAMPLES = RATE_HZ // 50

AUDIBLE = 330
"""Of 32767, −40 dBFS: the quietest sample that counts as heard. Speech is far above it, room tone below."""

BREATH_SAMPLES = RATE_HZ // 50
"""Kept before the first sound: a voice that begins at once clicks."""


class Playout:
    """One answer after the other.

    `ready` is called when the first audible sample of an answer is at hand, `heard` when it leaves, `over` when all of
    the answer has left.
    """

    def __init__(
        self,
        *,
        ready: Callable[[], None],
        heard: Callable[[], None],
        over: Callable[[], None],
        lead_samples: int = 0,
    ) -> None:
        """`lead_samples` are pulled before they are heard."""
        self._ready, self._heard, self._over = ready, heard, over
        self._lead_samples = lead_samples
        self._audio = bytearray()
        self.clear()

    @property
    def played_samples(self) -> int:
        """Of this answer as it was spoken, its head included, as far as the listener has heard it."""
        heard = self._pulled_samples - self._lead_samples
        return self._skipped_samples + heard if heard > 0 else 0

    def put(self, audio: bytes) -> None:
        self._audio += audio
        if not self._sounds:
            self._skip_silence()

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
        self._released = self._paused = self._ended = False
        self._sounds = self._was_heard = False
        self._pulled_samples = self._skipped_samples = 0

    def pull(self) -> bytes | None:
        """The next 20 ms, filled up with silence where less is at hand; None where nothing is to be heard."""
        if not self._released or self._paused:
            return None
        if not self._sounds or not self._audio:
            if self._ended:
                self._released = self._ended = False
                self._over()
            return None
        frame = bytes(self._audio[: 2 * FRAME_SAMPLES])
        del self._audio[: len(frame)]
        self._pulled_samples += len(frame) // 2
        if not self._was_heard and len(_audible(frame)):
            self._was_heard = True
            self._heard()
        return frame.ljust(2 * FRAME_SAMPLES, b"\0")

    def _skip_silence(self) -> None:
        loud = _audible(self._audio)
        samples = len(self._audio) // 2
        self._sounds = bool(len(loud))
        silent = max(0, (int(loud[0]) if self._sounds else samples) - BREATH_SAMPLES)
        del self._audio[: 2 * silent]
        self._skipped_samples += silent
        if self._sounds:
            self._ready()


def _audible(audio: bytes | bytearray) -> np.ndarray:
    """The places of the samples that can be heard."""
    return np.flatnonzero(np.abs(np.frombuffer(bytes(audio), "<i2").astype(np.int32)) >= AUDIBLE)
