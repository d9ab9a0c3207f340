"""Loudness and true peak by ITU-R BS.1770-4, measured as audio streams by.

    meter = Meter(sample_rate_hz); meter.push(block) …; curve = meter.finish()
    curve.integrated_lufs, curve.true_peak_dbtp

A curve keeps two numbers for every 10 ms, so ten hours are 29 MB. Mono float32, full scale ±1. It measures only: the
target and the gain are the caller's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import soxr
from numpy.typing import NDArray
from scipy.signal import sosfilt

from app.speech.audio import FLOOR_DBFS, Samples

SILENT_LUFS = -70.0
"""BS.1770's absolute gate: what is softer throughout has no loudness, and is given this one, as ffmpeg does."""

RELATIVE_GATE_LU = -10.0
OVERSAMPLING = 4
BLOCK_S = 0.01
_HOP_BLOCKS = 10  # a gating block of 400 ms begins every 100 ms
_GATE_HOPS = 4
_OFFSET_LUFS = -0.691  # so that a sine of 997 Hz at 0 dBFS reads -3.01 LUFS

Curve = NDArray[np.float32]


@dataclass(frozen=True)
class LoudnessCurve:
    """What was measured, for each block of `block_samples`: true peaks [n], and sums of K-weighted squares [n]."""

    sample_rate_hz: int
    samples: int
    peaks: Curve
    energies: Curve

    @property
    def block_samples(self) -> int:
        return _block_samples(self.sample_rate_hz)

    @cached_property
    def integrated_lufs(self) -> float:
        return _integrated_lufs(self.energies, self.block_samples)

    @cached_property
    def true_peak_dbtp(self) -> float:
        return _decibels(float(self.peaks.max(initial=0.0)))


class Meter:
    """Measures one stream; memory grows by 8 bytes for every 10 ms."""

    def __init__(self, sample_rate_hz: int) -> None:
        self._sample_rate_hz = sample_rate_hz
        self._samples = 0
        block = _block_samples(sample_rate_hz)
        self._weighting = _k_weighting(sample_rate_hz)
        self._state = np.zeros((len(self._weighting), 2))
        self._energies = _Blocks(block, lambda rows: np.einsum("ij,ij->i", rows, rows))
        # The oversampler gives its output late, in line with the input; what it has not given `finish` brings out.
        self._oversampler = soxr.ResampleStream(sample_rate_hz, OVERSAMPLING * sample_rate_hz, 1, dtype="float32")
        self._oversampled_peaks = _Blocks(block * OVERSAMPLING, lambda rows: np.abs(rows).max(axis=1))
        self._peaks = _Blocks(block, lambda rows: np.abs(rows).max(axis=1))

    def push(self, samples: Samples) -> None:
        if not len(samples):
            return
        self._samples += len(samples)
        weighted, self._state = sosfilt(self._weighting, samples, zi=self._state)
        self._energies.push(weighted)
        self._peaks.push(samples)
        self._oversampled_peaks.push(self._oversampler.resample_chunk(samples))

    def finish(self) -> LoudnessCurve:
        """End the stream. The last block may be short; it counts as silent beyond the end."""
        if self._samples:
            self._oversampled_peaks.push(self._oversampler.resample_chunk(np.zeros(0, np.float32), last=True))
        energies, peaks, between = (b.finish() for b in (self._energies, self._peaks, self._oversampled_peaks))
        between = np.pad(between[: len(peaks)], (0, max(len(peaks) - len(between), 0)))
        return LoudnessCurve(self._sample_rate_hz, self._samples, np.maximum(peaks, between), energies)


class _Blocks:
    """Cuts a stream into whole blocks and keeps one number for each."""

    def __init__(self, block: int, reduce: Callable[[NDArray], NDArray]) -> None:
        self._block = block
        self._reduce = reduce
        self._rest: NDArray = np.zeros(0, np.float32)
        self._kept: list[Curve] = []

    def push(self, samples: NDArray) -> None:
        samples = np.concatenate([self._rest, samples])
        whole = len(samples) // self._block * self._block
        self._rest = samples[whole:]
        if whole:
            self._kept.append(self._reduce(samples[:whole].reshape(-1, self._block)).astype(np.float32))

    def finish(self) -> Curve:
        if len(self._rest):
            self.push(np.zeros(self._block - len(self._rest), np.float32))
        kept, self._kept = self._kept, []
        return np.concatenate([np.zeros(0, np.float32), *kept])


def measure(samples: Samples, sample_rate_hz: int) -> LoudnessCurve:
    """The curve of audio that is at hand as a whole."""
    meter = Meter(sample_rate_hz)
    meter.push(samples)
    return meter.finish()


def _integrated_lufs(energies: Curve, block_samples: int) -> float:
    """Gated by BS.1770-4: blocks above -70 LUFS, then those within 10 LU of their mean. What is shorter than a gating
    block counts as one."""
    hops = np.add.reduceat(energies, np.arange(0, len(energies), _HOP_BLOCKS), dtype=np.float64)
    if len(energies) % _HOP_BLOCKS and len(hops) > _GATE_HOPS:
        hops = hops[:-1]
    if len(hops) < _GATE_HOPS:
        return max(_lufs(float(hops.sum()) / max(len(energies) * block_samples, 1)), SILENT_LUFS)
    sums = np.cumsum(np.concatenate([[0.0], hops]))
    powers = (sums[_GATE_HOPS:] - sums[:-_GATE_HOPS]) / (_GATE_HOPS * _HOP_BLOCKS * block_samples)
    loud = powers[powers > _power(SILENT_LUFS)]
    if not len(loud):
        return SILENT_LUFS
    return _lufs(float(loud[loud > loud.mean() * 10 ** (RELATIVE_GATE_LU / 10)].mean()))


def _lufs(power: float) -> float:
    return _OFFSET_LUFS + 10 * math.log10(max(power, 1e-12))


def _power(lufs: float) -> float:
    return 10 ** ((lufs - _OFFSET_LUFS) / 10)


def _decibels(amplitude: float) -> float:
    return max(20 * math.log10(max(amplitude, 1e-12)), FLOOR_DBFS)


def _block_samples(sample_rate_hz: int) -> int:
    return round(BLOCK_S * sample_rate_hz)


def _k_weighting(sample_rate_hz: int) -> NDArray[np.float64]:
    """BS.1770's shelf and high-pass for any rate, as second-order sections.

    The standard lists coefficients for 48 kHz only; these analogue parameters give those there to 1e-9 (Brecht De Man,
    "Evaluation of implementations of the EBU R128 loudness measurement", AES 145, 2018; ffmpeg has the same).
    """
    shelf_hz, shelf_db, shelf_q = 1681.9744509555319, 3.99984385397, 0.7071752369554193
    high_pass_hz, high_pass_q = 38.13547087613982, 0.5003270373253953

    k = math.tan(math.pi * shelf_hz / sample_rate_hz)
    high = 10 ** (shelf_db / 20)
    band = high**0.499666774155
    norm = 1 + k / shelf_q + k * k
    shelf = [
        (high + band * k / shelf_q + k * k) / norm,
        2 * (k * k - high) / norm,
        (high - band * k / shelf_q + k * k) / norm,
        1.0,
        2 * (k * k - 1) / norm,
        (1 - k / shelf_q + k * k) / norm,
    ]
    k = math.tan(math.pi * high_pass_hz / sample_rate_hz)
    norm = 1 + k / high_pass_q + k * k
    high_pass = [1.0, -2.0, 1.0, 1.0, 2 * (k * k - 1) / norm, (1 - k / high_pass_q + k * k) / norm]
    return np.array([shelf, high_pass])
