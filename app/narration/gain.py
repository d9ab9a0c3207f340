"""Loudness normalisation: the gain that brings speech to a loudness with no true peak above a ceiling.

    gain = gain_for(curve, target_lufs=-19, ceiling_dbtp=-3); gain.apply(block, first_sample)

All that it needs is known from the curve of `app.platform.loudness`: nothing is read twice to find it. Limiting is a
gain that moves within 40 ms on either side of a peak, never within a period of a voice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import minimum_filter1d

from app.platform.loudness import SILENT_LUFS, Curve, LoudnessCurve
from app.speech.audio import Samples

MAX_DRIVE_DB = 12.0
"""How far the gain may rise beyond what the loudness alone asks for; 6 dB more make speech 0.02 LU louder, and flat."""

_SMOOTHING = np.array([1.0, 2.0, 1.0]) / 4.0
_HOLD_BLOCKS = 2 * (len(_SMOOTHING) // 2 + 1) + 1  # the smoothing's reach, and a block more for the line to the next


@dataclass(frozen=True)
class Gain:
    """One gain for the whole, lowered around peaks: `factors` [blocks] hold in the middle of each block, and between
    the middles a straight line. `expected_lufs` is what it makes of the curve it was found for."""

    factors: Curve
    block_samples: int
    static_db: float
    expected_lufs: float

    def lowered(self, by_db: float) -> Gain:
        """The same gain, less so much everywhere."""
        return replace(
            self,
            factors=self.factors * np.float32(10 ** (-by_db / 20)),
            static_db=self.static_db - by_db,
            expected_lufs=self.expected_lufs - by_db,
        )

    def apply(self, samples: Samples, first_sample: int) -> Samples:
        """The samples, of which the first is number `first_sample` of the programme, with the gain on them."""
        if not len(self.factors):
            return samples
        at = (np.arange(first_sample, first_sample + len(samples)) + 0.5) / self.block_samples - 0.5
        before = max(math.floor(at[0]), 0) if len(at) else 0
        near = self.factors[before : before + len(samples) // self.block_samples + 3]
        return samples * np.interp(at - before, np.arange(len(near)), near).astype(np.float32)


def gain_for(curve: LoudnessCurve, *, target_lufs: float, ceiling_dbtp: float) -> Gain:
    """The gain that brings the programme to the loudness with no true peak above the ceiling.

    What limiting takes is given back by more gain, up to MAX_DRIVE_DB; when both cannot be had the ceiling holds and
    `expected_lufs` tells. Silence is left as it is.
    """
    if curve.integrated_lufs <= SILENT_LUFS:
        static_db = min(0.0, ceiling_dbtp - curve.true_peak_dbtp)
        return Gain(_constant(static_db, len(curve.peaks)), curve.block_samples, static_db, SILENT_LUFS)
    wanted_db = static_db = target_lufs - curve.integrated_lufs
    slope, before = 1.0, (-math.inf, -math.inf)
    while True:
        factors = _limited(curve.peaks, static_db, ceiling_dbtp)
        expected = replace(curve, energies=curve.energies * np.square(factors)).integrated_lufs
        missing_db = target_lufs - expected
        if missing_db < 0.01 or static_db >= wanted_db + MAX_DRIVE_DB:
            return Gain(factors, curve.block_samples, static_db, expected)
        # The more gain, the less of it becomes loudness: the secant's slope is too steep, so no step goes too far.
        if before[0] > -math.inf:
            slope = max((expected - before[1]) / (static_db - before[0]), 0.1)
        before = static_db, expected
        static_db = min(static_db + max(missing_db / slope, 0.02), wanted_db + MAX_DRIVE_DB)


def _limited(peaks: Curve, static_db: float, ceiling_dbtp: float) -> Curve:
    """The static gain, lowered wherever a peak would pass the ceiling.

    The lowest gain within _HOLD_BLOCKS is smoothed over fewer than those, so no block gets more than it bears.
    """
    static, ceiling = 10 ** (static_db / 20), 10 ** (ceiling_dbtp / 20)
    borne = np.minimum(np.float32(static), np.float32(ceiling) / np.maximum(peaks, np.float32(1e-9)))
    if not len(borne) or borne.min() >= np.float32(static):
        return _constant(static_db, len(peaks))
    held = minimum_filter1d(borne, _HOLD_BLOCKS, mode="nearest")
    reach = len(_SMOOTHING) // 2
    return np.convolve(np.pad(held, reach, mode="edge"), _SMOOTHING.astype(np.float32), mode="valid")


def _constant(static_db: float, blocks: int) -> Curve:
    return np.full(blocks, 10 ** (static_db / 20), np.float32)
