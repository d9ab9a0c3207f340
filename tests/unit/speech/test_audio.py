"""PCM, levels, onsets, silences and joins, on signals whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.speech.audio import (
    FLOOR_DBFS,
    HeadSilenceMeter,
    Samples,
    crossfade_join,
    duration_s,
    finite,
    head_silence_s,
    onset_s,
    pcm16_of,
    rms_dbfs,
    samples_of,
    silence_runs,
)

RATE_HZ = 24_000


def seconds(value: float) -> int:
    return round(value * RATE_HZ)


def speech(length_s: float) -> Samples:
    """A buzz with the rhythm of syllables, RMS about 0.1: an onset as sharp as a spoken one."""
    t = np.arange(seconds(length_s)) / RATE_HZ
    buzz = sum((np.sin(2 * np.pi * 140 * k * t) / k for k in range(1, 12)), np.zeros_like(t))
    syllables = 0.55 + 0.45 * np.cos(2 * np.pi * 4 * t)
    return (0.12 * buzz * syllables).astype(np.float32)


def room(length_s: float, level_dbfs: float, seed: int = 0) -> Samples:
    """Pink noise of an RMS of `level_dbfs`."""
    n = seconds(length_s)
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(n))
    noise = np.fft.irfft(spectrum / np.sqrt(np.maximum(np.fft.rfftfreq(n, 1 / RATE_HZ), 20)), n)
    return (noise / np.sqrt(np.mean(noise**2)) * 10 ** (level_dbfs / 20)).astype(np.float32)


def silence(length_s: float) -> Samples:
    return np.zeros(seconds(length_s), np.float32)


# PCM


def test_every_16_bit_value_survives_the_way_there_and_back() -> None:
    every = np.arange(-32768, 32768, dtype="<i2").tobytes()
    assert pcm16_of(samples_of(every)) == every


def test_pcm_is_little_endian_clipped_and_rounded_to_nearest() -> None:
    samples = np.array([2.0, -2.0, 1 / 32768, 0.4 / 32768, 0.6 / 32768], np.float32)
    assert np.frombuffer(pcm16_of(samples), "<i2").tolist() == [32767, -32768, 1, 0, 1]
    assert pcm16_of(np.array([1 / 32768], np.float32)) == b"\x01\x00"


def test_what_is_no_number_is_silent() -> None:
    hostile = np.array([math.nan, math.inf, -math.inf, 0.5], np.float32)
    assert finite(hostile).tolist() == [0.0, 0.0, 0.0, 0.5]
    assert np.frombuffer(pcm16_of(hostile), "<i2").tolist() == [0, 0, 0, 16384]


def test_what_is_far_too_loud_is_clipped() -> None:
    assert np.frombuffer(pcm16_of(np.array([1e30, -1e30, 0.5], np.float32)), "<i2").tolist() == [32767, -32768, 16384]


def test_half_a_sample_is_refused() -> None:
    with pytest.raises(ValueError, match="3 bytes"):
        samples_of(b"abc")


# Levels


def test_levels_are_relative_to_a_full_scale_square_wave() -> None:
    t = np.arange(RATE_HZ) / RATE_HZ
    sine = np.sin(2 * np.pi * 100 * t).astype(np.float32)
    assert rms_dbfs(np.ones(100, np.float32)) == pytest.approx(0.0)
    assert rms_dbfs(sine) == pytest.approx(-3.01, abs=0.01)
    assert rms_dbfs(sine * np.float32(0.1)) == pytest.approx(-23.01, abs=0.01)
    assert rms_dbfs(silence(0.1)) == rms_dbfs(silence(0)) == FLOOR_DBFS


def test_a_duration_is_samples_by_their_rate() -> None:
    assert duration_s(silence(1.5), RATE_HZ) == 1.5


# Onsets


@pytest.mark.parametrize("lead_s", [0.0, 0.1, 0.6, 2.5])
@pytest.mark.parametrize("noise_dbfs", [-100, -62, -45, -38])
def test_the_onset_is_found_in_quiet_and_in_noisy_rooms(lead_s: float, noise_dbfs: float) -> None:
    audio = np.concatenate([silence(lead_s), speech(1.0)])
    onset = onset_s(audio + room(lead_s + 1.0, noise_dbfs), RATE_HZ)
    assert onset == pytest.approx(lead_s, abs=0.015)


def test_a_click_is_no_onset() -> None:
    audio = np.concatenate([silence(0.5), speech(1.0)])
    audio[seconds(0.2)] = 1.0
    assert onset_s(audio, RATE_HZ) == pytest.approx(0.5, abs=0.015)


def test_room_tone_has_no_onset_and_is_silence_throughout() -> None:
    assert onset_s(room(2.0, -45), RATE_HZ) is None
    assert head_silence_s(room(2.0, -45), RATE_HZ) == 2.0
    assert onset_s(silence(0), RATE_HZ) is None


def test_speech_in_the_last_50_ms_is_found_at_the_end() -> None:
    audio = np.concatenate([silence(0.5), speech(0.03)])
    meter = HeadSilenceMeter(RATE_HZ)
    assert meter.push(audio) is None
    assert meter.finish() == pytest.approx(0.5)


def test_head_silence_is_known_50_ms_after_the_onset() -> None:
    meter = HeadSilenceMeter(RATE_HZ)
    assert meter.push(silence(0.6)) is None
    assert meter.push(speech(0.04)) is None
    assert meter.push(speech(0.02)) == pytest.approx(0.6)
    assert meter.push(silence(5.0)) == meter.head_silence_s == pytest.approx(0.6)


@given(st.lists(st.integers(1, 4000), min_size=1, max_size=40))
def test_packets_of_any_size_measure_the_same(sizes: list[int]) -> None:
    audio = np.concatenate([silence(0.3), speech(0.5)]) + room(0.8, -50)
    meter, at = HeadSilenceMeter(RATE_HZ), 0
    for size in sizes:
        meter.push(audio[at : at + size])
        at += size
    meter.push(audio[at:])
    assert meter.finish() == onset_s(audio, RATE_HZ)


# Silences within


def test_silence_runs_are_found_from_their_beginning_to_their_end() -> None:
    audio = np.concatenate([silence(0.3), speech(1.0), silence(0.5), speech(0.5), silence(0.1)])
    runs = silence_runs(audio + room(2.4, -45), RATE_HZ)
    assert runs == [pytest.approx((0.0, 0.3), abs=0.015), pytest.approx((1.3, 1.8), abs=0.015)]


def test_a_shorter_silence_counts_when_requested() -> None:
    audio = np.concatenate([speech(0.5), silence(0.1), speech(0.5)])
    assert silence_runs(audio, RATE_HZ) == []
    assert silence_runs(audio, RATE_HZ, min_s=0.1) == [pytest.approx((0.5, 0.6), abs=0.011)]


def test_all_silence_is_one_run_and_nothing_is_none() -> None:
    assert silence_runs(silence(1.0), RATE_HZ) == [pytest.approx((0.0, 1.0))]
    assert silence_runs(silence(0.001), RATE_HZ) == []


# Joins


def test_a_join_of_a_signal_with_itself_is_that_signal() -> None:
    whole = speech(1.0)
    overlap = seconds(0.015)
    joined = crossfade_join(whole[: seconds(0.5)], whole[seconds(0.5) - overlap :], RATE_HZ)
    assert joined == pytest.approx(whole, abs=1e-6)


def test_a_join_of_unrelated_signals_keeps_their_energy() -> None:
    a, b = room(1.0, -20, seed=1), room(1.0, -20, seed=2)
    joined = crossfade_join(a, b, RATE_HZ, fade_s=0.5)
    assert len(joined) == seconds(1.5)
    assert rms_dbfs(joined[seconds(0.7) : seconds(0.8)]) == pytest.approx(-20, abs=1.0)


@pytest.mark.parametrize("lengths", [(0, 0), (0, 500), (500, 0), (3, 500), (500, 3)])
def test_a_join_overlaps_by_no_more_than_there_is(lengths: tuple[int, int]) -> None:
    a, b = (np.full(length, 0.5, np.float32) for length in lengths)
    joined = crossfade_join(a, b, RATE_HZ)
    assert len(joined) == sum(lengths) - min(*lengths, seconds(0.015))
    assert joined == pytest.approx(np.full(len(joined), 0.5), abs=1e-6)


def test_a_join_of_digital_silence_is_silent() -> None:
    assert not crossfade_join(silence(0.1), silence(0.1), RATE_HZ).any()
