"""Time stretching that keeps the pitch: ffmpeg's `atempo`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction

import av
import av.filter
import numpy as np

from app.speech.audio import Samples, finite


def audio_frame(samples: Samples, sample_rate_hz: int, pts: int) -> av.AudioFrame:
    """Mono float32 samples as ffmpeg takes them; `pts` counts the samples before."""
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples)[None], format="flt", layout="mono")
    frame.sample_rate = sample_rate_hz
    frame.time_base = Fraction(1, sample_rate_hz)
    frame.pts = pts
    return frame


class Tempo:
    """A stream of samples, `speed` times as fast.

    n samples become round(n / speed) and 10 ms more: atempo moves sounds by up to 5 ms, so that an exact end would clip
    the last of them. By itself it would also keep up to 40 ms back, so silence pushes them out.
    """

    _TAIL_S = 0.01
    _PUSH_OUT_S = 0.25  # of output; each filter of the chain holds less than two of its 43 ms windows

    def __init__(self, sample_rate_hz: int, speed: float) -> None:
        self._sample_rate_hz = sample_rate_hz
        self._speed = speed
        self._begin()

    def _begin(self) -> None:
        rate_hz = self._sample_rate_hz
        self._samples = 0
        self._stretched = 0
        # One filter slows down to a half at most, and above two it drops samples instead of blending them.
        filters = max(1, math.ceil(abs(math.log2(self._speed))))
        self._graph = av.filter.Graph()
        source = self._graph.add_abuffer(
            sample_rate=rate_hz, format="flt", layout="mono", time_base=Fraction(1, rate_hz)
        )
        chain = [self._graph.add("atempo", f"{self._speed ** (1 / filters):.9f}") for _ in range(filters)]
        self._graph.link_nodes(source, *chain, self._graph.add("abuffersink")).configure()

    def push(self, samples: Samples) -> Samples:
        """Take mono float32 samples [n]; returns what is certain by now."""
        if len(samples):
            self._graph.push(audio_frame(finite(samples), self._sample_rate_hz, self._samples))
            self._samples += len(samples)
        return self._pulled()

    def skip(self) -> None:
        """Forget what is held back: what follows is another stream."""
        if self._samples:
            self._begin()

    def finish(self) -> Samples:
        """The rest."""
        if not self._samples:
            return np.zeros(0, np.float32)
        wanted = round(self._samples / self._speed) + round(self._TAIL_S * self._sample_rate_hz) - self._stretched
        silence = np.zeros(round(self._PUSH_OUT_S * self._speed * self._sample_rate_hz), np.float32)
        self._graph.push(audio_frame(silence, self._sample_rate_hz, self._samples))
        self._graph.push(None)
        return self._pulled()[:wanted]

    def _pulled(self) -> Samples:
        pulled = np.concatenate([np.zeros(0, np.float32), *self._frames()])
        self._stretched += len(pulled)
        return pulled

    def _frames(self) -> Iterator[Samples]:
        while True:
            try:
                frame = self._graph.pull()
            except (BlockingIOError, EOFError):  # PyAV's own derive from these
                return
            assert isinstance(frame, av.AudioFrame)
            yield frame.to_ndarray()[0]
