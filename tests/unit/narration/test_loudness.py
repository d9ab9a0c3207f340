"""Loudness and true peak against signals of known loudness, pyloudnorm and ffmpeg; and the gain that is found."""

from __future__ import annotations

import math
from fractions import Fraction

import av
import av.filter
import numpy as np
import pyloudnorm
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.narration.loudness import MAX_DRIVE_DB, SILENT_LUFS, LoudnessCurve, Meter, gain_for
from app.speech.audio import FLOOR_DBFS, Samples

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


def measured(samples: Samples, rate_hz: int = RATE_HZ, *, block: int = 50_000) -> LoudnessCurve:
    meter = Meter(rate_hz)
    for start in range(0, len(samples), block):
        meter.push(samples[start : start + block])
    return meter.finish()


def levelled(samples: Samples, *, target_lufs: float, ceiling_dbtp: float, block: int = 30_011) -> Samples:
    gain = gain_for(measured(samples), target_lufs=target_lufs, ceiling_dbtp=ceiling_dbtp)
    return np.concatenate([gain.apply(samples[at : at + block], at) for at in range(0, len(samples), block)])


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


# What is measured.


@pytest.mark.parametrize("rate_hz", [16_000, 22_050, 24_000, 44_100, 48_000])
def test_a_sine_of_997_hz_reads_three_below_its_peak(rate_hz: int) -> None:
    """EBU Tech 3341's first case, in mono: such a sine at -23 dBFS in one channel reads -26.0 LUFS."""
    assert measured(sine(997, 5, -23, rate_hz), rate_hz).integrated_lufs == pytest.approx(-26.0, abs=0.05)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_loudness_is_that_of_pyloudnorm_and_ffmpeg(seed: int) -> None:
    samples = speech(20, seed)
    ours = measured(samples).integrated_lufs
    assert ours == pytest.approx(pyloudnorm.Meter(RATE_HZ, filter_class="DeMan").integrated_loudness(samples), abs=0.05)
    assert ours == pytest.approx(by_ffmpeg(samples)[0], abs=0.1)


def test_silence_and_soft_passages_are_gated_out() -> None:
    loud, soft = sine(997, 10, -20), sine(997, 30, -45)
    silence = np.zeros(20 * RATE_HZ, np.float32)
    alone = measured(loud).integrated_lufs
    assert measured(np.concatenate([loud, soft, silence])).integrated_lufs == pytest.approx(alone, abs=0.1)


def test_a_true_peak_between_the_samples_is_seen() -> None:
    """A sine at a quarter of the rate, sampled beside its crests: 3 dB above every sample of it."""
    hidden = sine(RATE_HZ / 4, 1, -6, phase=math.pi / 4)
    hidden *= np.hanning(len(hidden)).astype(np.float32) ** 0.25
    assert 20 * math.log10(np.abs(hidden).max()) == pytest.approx(-9.0, abs=0.1)
    assert measured(hidden).true_peak_dbtp == pytest.approx(-6.0, abs=0.1)


@pytest.mark.parametrize("seed", [1, 2])
def test_true_peaks_are_those_of_ffmpeg(seed: int) -> None:
    samples = speech(10, seed)
    assert measured(samples).true_peak_dbtp == pytest.approx(by_ffmpeg(samples)[1], abs=0.3)


@settings(deadline=None, max_examples=15)
@given(block=st.integers(1, 5_000))
def test_the_blocks_it_comes_in_do_not_matter(block: int) -> None:
    samples = speech(0.7)
    whole, cut = measured(samples), measured(samples, block=block)
    assert cut.samples == whole.samples
    np.testing.assert_allclose(cut.peaks, whole.peaks, atol=1e-6)
    np.testing.assert_allclose(cut.energies, whole.energies, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("length", [0, 1, 119, 9_600, 3 * RATE_HZ])
def test_silence_of_any_length_has_a_floor(length: int) -> None:
    curve = measured(np.zeros(length, np.float32))
    assert (curve.samples, curve.integrated_lufs, curve.true_peak_dbtp) == (length, SILENT_LUFS, FLOOR_DBFS)


def test_what_is_shorter_than_a_gating_block_has_a_loudness() -> None:
    assert measured(sine(997, 0.2, -23)).integrated_lufs == pytest.approx(-26.0, abs=0.5)


# What is made of it.


def test_where_no_peak_is_in_the_way_the_gain_is_one_number() -> None:
    samples = speech(10)
    gain = gain_for(measured(samples), target_lufs=-40, ceiling_dbtp=-3)
    assert np.ptp(gain.factors) == 0
    expected = samples * np.float32(10 ** (gain.static_db / 20))
    np.testing.assert_allclose(gain.apply(samples, 0), expected, rtol=1e-6)


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(("target_lufs", "ceiling_dbtp"), [(-19, -3), (-23, -8), (-16, -3), (-19, -6)])
def test_loudness_and_true_peak_hold_together(seed: int, target_lufs: float, ceiling_dbtp: float) -> None:
    samples = speech(20, seed)
    assert measured(samples).true_peak_dbtp - measured(samples).integrated_lufs > ceiling_dbtp - target_lufs

    made = levelled(samples, target_lufs=target_lufs, ceiling_dbtp=ceiling_dbtp)
    curve = measured(made)
    assert curve.integrated_lufs == pytest.approx(target_lufs, abs=0.1)
    assert curve.true_peak_dbtp <= ceiling_dbtp + 0.02
    assert by_ffmpeg(made)[0] == pytest.approx(target_lufs, abs=0.2)
    assert by_ffmpeg(made)[1] <= ceiling_dbtp + 0.25


def test_where_both_cannot_be_had_the_peak_holds_and_the_gain_tells() -> None:
    samples = speech(10)
    curve = measured(samples)
    gain = gain_for(curve, target_lufs=-9, ceiling_dbtp=-12)
    assert gain.static_db == pytest.approx(-9 - curve.integrated_lufs + MAX_DRIVE_DB)

    made = measured(gain.apply(samples, 0))
    assert made.true_peak_dbtp <= -12 + 0.05
    assert made.integrated_lufs == pytest.approx(gain.expected_lufs, abs=0.3)
    assert gain.expected_lufs < -12


def test_the_limiter_moves_too_slowly_to_click() -> None:
    """One peak 8 dB too high in a steady tone: the gain moves by less than 1 dB a millisecond, and only near it."""
    samples = sine(200, 4, -20)
    samples[2 * RATE_HZ] = 0.9
    gain = gain_for(measured(samples), target_lufs=-20, ceiling_dbtp=-6)
    applied = gain.apply(np.ones(len(samples), np.float32), 0)

    assert applied.min() < 0.75 * applied.max()
    moves = np.abs(applied[RATE_HZ // 1000 :] / applied[: -RATE_HZ // 1000] - 1)
    assert moves.max() < 10 ** (1 / 20) - 1
    far = np.abs(np.arange(len(samples)) - 2 * RATE_HZ) > 0.05 * RATE_HZ
    assert np.ptp(applied[far]) == 0


def test_the_gain_is_the_same_however_the_audio_is_cut() -> None:
    samples = speech(5)
    gain = gain_for(measured(samples), target_lufs=-14, ceiling_dbtp=-6)
    pieces = [gain.apply(samples[at : at + 777], at) for at in range(0, len(samples), 777)]
    np.testing.assert_allclose(np.concatenate(pieces), gain.apply(samples, 0), atol=1e-6)


@pytest.mark.parametrize("samples", [np.zeros(RATE_HZ, np.float32), np.zeros(0, np.float32), sine(100, 1, -90)])
def test_silence_is_left_as_it_is(samples: Samples) -> None:
    gain = gain_for(measured(samples), target_lufs=-19, ceiling_dbtp=-3)
    np.testing.assert_array_equal(gain.apply(samples, 0), samples)
