"""The gain that brings loudness and true peak where they are wanted, by what is measured of the audio afterwards."""

from __future__ import annotations

import numpy as np
import pytest

from app.narration.gain import MAX_DRIVE_DB, gain_for
from app.platform.loudness import measure
from app.speech.audio import Samples
from tests.support.loudness import RATE_HZ, by_ffmpeg, sine, speech


def levelled(samples: Samples, *, target_lufs: float, ceiling_dbtp: float, block: int = 30_011) -> Samples:
    gain = gain_for(measure(samples, RATE_HZ), target_lufs=target_lufs, ceiling_dbtp=ceiling_dbtp)
    return np.concatenate([gain.apply(samples[at : at + block], at) for at in range(0, len(samples), block)])


def test_where_no_peak_is_in_the_way_the_gain_is_one_number() -> None:
    samples = speech(10)
    gain = gain_for(measure(samples, RATE_HZ), target_lufs=-40, ceiling_dbtp=-3)
    assert np.ptp(gain.factors) == 0
    expected = samples * np.float32(10 ** (gain.static_db / 20))
    np.testing.assert_allclose(gain.apply(samples, 0), expected, rtol=1e-6)


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(("target_lufs", "ceiling_dbtp"), [(-19, -3), (-23, -8), (-16, -3), (-19, -6)])
def test_loudness_and_true_peak_hold_together(seed: int, target_lufs: float, ceiling_dbtp: float) -> None:
    samples = speech(20, seed)
    before = measure(samples, RATE_HZ)
    assert before.true_peak_dbtp - before.integrated_lufs > ceiling_dbtp - target_lufs

    made = levelled(samples, target_lufs=target_lufs, ceiling_dbtp=ceiling_dbtp)
    curve = measure(made, RATE_HZ)
    assert curve.integrated_lufs == pytest.approx(target_lufs, abs=0.1)
    assert curve.true_peak_dbtp <= ceiling_dbtp + 0.02
    assert by_ffmpeg(made)[0] == pytest.approx(target_lufs, abs=0.2)
    assert by_ffmpeg(made)[1] <= ceiling_dbtp + 0.25


def test_where_both_cannot_be_had_the_peak_holds_and_the_gain_tells() -> None:
    samples = speech(10)
    curve = measure(samples, RATE_HZ)
    gain = gain_for(curve, target_lufs=-9, ceiling_dbtp=-12)
    assert gain.static_db == pytest.approx(-9 - curve.integrated_lufs + MAX_DRIVE_DB)

    made = measure(gain.apply(samples, 0), RATE_HZ)
    assert made.true_peak_dbtp <= -12 + 0.05
    assert made.integrated_lufs == pytest.approx(gain.expected_lufs, abs=0.3)
    assert gain.expected_lufs < -12


def test_the_limiter_moves_too_slowly_to_click() -> None:
    """One peak 8 dB too high in a steady tone: the gain moves by less than 1 dB a millisecond, and only near it."""
    samples = sine(200, 4, -20)
    samples[2 * RATE_HZ] = 0.9
    gain = gain_for(measure(samples, RATE_HZ), target_lufs=-20, ceiling_dbtp=-6)
    applied = gain.apply(np.ones(len(samples), np.float32), 0)

    assert applied.min() < 0.75 * applied.max()
    moves = np.abs(applied[RATE_HZ // 1000 :] / applied[: -RATE_HZ // 1000] - 1)
    assert moves.max() < 10 ** (1 / 20) - 1
    far = np.abs(np.arange(len(samples)) - 2 * RATE_HZ) > 0.05 * RATE_HZ
    assert np.ptp(applied[far]) == 0


def test_the_gain_is_the_same_however_the_audio_is_cut() -> None:
    samples = speech(5)
    gain = gain_for(measure(samples, RATE_HZ), target_lufs=-14, ceiling_dbtp=-6)
    pieces = [gain.apply(samples[at : at + 777], at) for at in range(0, len(samples), 777)]
    np.testing.assert_allclose(np.concatenate(pieces), gain.apply(samples, 0), atol=1e-6)


@pytest.mark.parametrize("samples", [np.zeros(RATE_HZ, np.float32), np.zeros(0, np.float32), sine(100, 1, -90)])
def test_silence_is_left_as_it_is(samples: Samples) -> None:
    gain = gain_for(measure(samples, RATE_HZ), target_lufs=-19, ceiling_dbtp=-3)
    np.testing.assert_array_equal(gain.apply(samples, 0), samples)
