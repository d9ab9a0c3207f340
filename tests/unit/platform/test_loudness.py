"""Loudness and true peak against signals of known loudness, pyloudnorm and ffmpeg."""

from __future__ import annotations

import math

import numpy as np
import pyloudnorm
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.platform.loudness import SILENT_LUFS, Meter, measure
from app.speech.audio import FLOOR_DBFS
from tests.support.loudness import RATE_HZ, by_ffmpeg, sine, speech


@pytest.mark.parametrize("rate_hz", [16_000, 22_050, 24_000, 44_100, 48_000])
def test_a_sine_of_997_hz_reads_three_below_its_peak(rate_hz: int) -> None:
    """EBU Tech 3341's first case, in mono: such a sine at -23 dBFS in one channel reads -26.0 LUFS."""
    assert measure(sine(997, 5, -23, rate_hz), rate_hz).integrated_lufs == pytest.approx(-26.0, abs=0.05)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_loudness_is_that_of_pyloudnorm_and_ffmpeg(seed: int) -> None:
    samples = speech(20, seed)
    ours = measure(samples, RATE_HZ).integrated_lufs
    assert ours == pytest.approx(pyloudnorm.Meter(RATE_HZ, filter_class="DeMan").integrated_loudness(samples), abs=0.05)
    assert ours == pytest.approx(by_ffmpeg(samples)[0], abs=0.1)


def test_silence_and_soft_passages_are_gated_out() -> None:
    loud, soft = sine(997, 10, -20), sine(997, 30, -45)
    silence = np.zeros(20 * RATE_HZ, np.float32)
    alone = measure(loud, RATE_HZ).integrated_lufs
    assert measure(np.concatenate([loud, soft, silence]), RATE_HZ).integrated_lufs == pytest.approx(alone, abs=0.1)


def test_a_true_peak_between_the_samples_is_seen() -> None:
    """A sine at a quarter of the rate, sampled beside its crests: 3 dB above every sample of it."""
    hidden = sine(RATE_HZ / 4, 1, -6, phase=math.pi / 4)
    hidden *= np.hanning(len(hidden)).astype(np.float32) ** 0.25
    assert 20 * math.log10(np.abs(hidden).max()) == pytest.approx(-9.0, abs=0.1)
    assert measure(hidden, RATE_HZ).true_peak_dbtp == pytest.approx(-6.0, abs=0.1)


@pytest.mark.parametrize("seed", [1, 2])
def test_true_peaks_are_those_of_ffmpeg(seed: int) -> None:
    samples = speech(10, seed)
    assert measure(samples, RATE_HZ).true_peak_dbtp == pytest.approx(by_ffmpeg(samples)[1], abs=0.3)


@settings(deadline=None, max_examples=15)
@given(block=st.integers(1, 5_000))
def test_the_blocks_it_comes_in_do_not_matter(block: int) -> None:
    samples = speech(0.7)
    meter = Meter(RATE_HZ)
    for start in range(0, len(samples), block):
        meter.push(samples[start : start + block])
    whole, cut = measure(samples, RATE_HZ), meter.finish()
    assert cut.samples == whole.samples
    np.testing.assert_allclose(cut.peaks, whole.peaks, atol=1e-6)
    np.testing.assert_allclose(cut.energies, whole.energies, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("length", [0, 1, 119, 9_600, 3 * RATE_HZ])
def test_silence_of_any_length_has_a_floor(length: int) -> None:
    curve = measure(np.zeros(length, np.float32), RATE_HZ)
    assert (curve.samples, curve.integrated_lufs, curve.true_peak_dbtp) == (length, SILENT_LUFS, FLOOR_DBFS)


def test_what_is_shorter_than_a_gating_block_has_a_loudness() -> None:
    assert measure(sine(997, 0.2, -23), RATE_HZ).integrated_lufs == pytest.approx(-26.0, abs=0.5)
