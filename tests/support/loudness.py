"""Signals to measure the loudness of, and what ffmpeg says of it."""

from __future__ import annotations

import math
from fractions import Fraction

import av
import av.filter
import numpy as np

from app.speech.audio import Samples

RATE_HZ = 24_000


def sine(hz: float, length_s: float, dbfs: float, rate_hz: int = RATE_HZ, phase: float = 0.0) -> Samples:
    t = np.arange(round(length_s * rate_hz)) / rate_hz
    return (10 ** (dbfs / 20) * np.sin(2 * np.pi * hz * t + phase)).astype(np.float32)


def speech(length_s: float, seed: int = 0, rate_hz: int = RATE_HZ) -> Samples:
    """A buzz in syllables of changing loudness with pauses, and here and there a peak."""
    draw = np.random.default_rng(seed)
    t = np.arange(round(length_s * rate_hz)) / rate_hz
    buzz = sum((np.sin(2 * np.pi * 130 * k * t + k * k) / k for k in range(1, 20)), np.zeros_like(t))
    syllables = np.repeat(draw.choice([0, 0.3, 0.6, 1.0], math.ceil(length_s * 5)), rate_hz // 5)[: len(t)]
    swell = np.convolve(syllables, np.hanning(rate_hz // 20) / (rate_hz // 40), mode="same")
    peaks = np.zeros_like(t)
    peaks[draw.integers(0, len(t), round(length_s))] = draw.uniform(-0.5, 0.5, round(length_s))
    return (0.1 * buzz * swell + peaks * swell).astype(np.float32)


def by_ffmpeg(samples: Samples, rate_hz: int = RATE_HZ) -> tuple[float, float]:
    """Integrated loudness and true peak by ffmpeg's `ebur128`, which looks at 192 kHz."""
    graph = av.filter.Graph()
    source = graph.add_abuffer(sample_rate=rate_hz, format="flt", layout="mono", time_base=Fraction(1, rate_hz))
    graph.link_nodes(
        source, graph.add("ebur128", "peak=true:metadata=1:dualmono=0"), graph.add("abuffersink")
    ).configure()
    frame = av.AudioFrame.from_ndarray(samples[None], format="flt", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = rate_hz, 0, Fraction(1, rate_hz)
    graph.push(frame)
    graph.push(None)
    last: dict[str, str] = {}
    peak = 0.0  # which the filter gives as an amplitude
    while True:
        try:
            out = graph.pull()
        except EOFError:
            return float(last["lavfi.r128.I"]), 20 * math.log10(peak)
        assert isinstance(out, av.AudioFrame)
        last = dict(out.metadata)
        peak = max(peak, float(last["lavfi.r128.true_peaks_ch0"]))
