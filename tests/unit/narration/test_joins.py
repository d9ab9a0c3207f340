"""Trimming takes and joining them, on signals whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from app.narration.joins import FADE_S, LEAD_S, MIN_FADE_S, TAIL_S, gap_samples, speech_bounds, trim
from app.speech.audio import Samples, rms_dbfs

RATE_HZ = 24_000


def seconds(value: float) -> int:
    return round(value * RATE_HZ)


def speech(length_s: float, amplitude: float = 0.12) -> Samples:
    """A buzz with the rhythm of syllables, as loud at both ends as in the middle."""
    t = np.arange(seconds(length_s)) / RATE_HZ
    buzz = sum((np.sin(2 * np.pi * 140 * k * t + k) / k for k in range(1, 12)), np.zeros_like(t))
    return (amplitude * buzz * (0.55 + 0.45 * np.cos(2 * np.pi * 4 * t))).astype(np.float32)


def room(length_s: float, level_dbfs: float = -65.0) -> Samples:
    noise = np.random.default_rng(7).standard_normal(seconds(length_s))
    return (noise * 10 ** (level_dbfs / 20)).astype(np.float32)


def take(head_s: float, tail_s: float, level_dbfs: float = -65.0) -> Samples:
    return np.concatenate([room(head_s, level_dbfs), speech(1.5), room(tail_s, level_dbfs)])


def test_gaps_are_whole_samples() -> None:
    assert [gap_samples(gap_s, RATE_HZ) for gap_s in (0.0, 0.35, 1 / 3, 2.00001)] == [0, 8400, 8000, 48_000]


@pytest.mark.parametrize("level_dbfs", [-120.0, -65.0, -50.0])
@pytest.mark.parametrize(("head_s", "tail_s"), [(0.6, 0.9), (0.2, 0.2), (3.0, 3.0)])
def test_what_is_kept_is_the_speech_and_a_little_of_its_room(head_s: float, tail_s: float, level_dbfs: float) -> None:
    trimmed, _ = trim(take(head_s, tail_s, level_dbfs), RATE_HZ)

    least, most = (seconds(lead + 1.5 + tail) for lead, tail in zip(LEAD_S, TAIL_S, strict=True))
    assert least - seconds(0.02) <= len(trimmed) <= most + seconds(0.02)


@pytest.mark.parametrize("head_s", [0.0, 0.003, 0.012, 0.05, 0.6])
@pytest.mark.parametrize("tail_s", [0.0, 0.003, 0.012, 0.1, 0.6])
def test_no_speech_is_cut_and_hardly_any_faded(head_s: float, tail_s: float) -> None:
    spoken = speech(1.5)
    trimmed, _ = trim(take(head_s, tail_s), RATE_HZ)

    untouched = spoken[seconds(MIN_FADE_S) : len(spoken) - seconds(MIN_FADE_S)]
    pieces = np.lib.stride_tricks.sliding_window_view(trimmed, len(untouched))
    assert np.any(np.all(np.isclose(pieces[:, ::2000], untouched[::2000], atol=1e-7), axis=1))


def test_a_fade_lies_in_the_silence_where_there_is_enough_of_it() -> None:
    audio = take(0.6, 0.6)
    trimmed, _ = trim(audio, RATE_HZ)

    inner = trimmed[seconds(FADE_S) : -seconds(FADE_S)]
    start = next(at for at in range(seconds(0.6)) if np.array_equal(audio[at : at + len(inner)], inner))
    assert start < seconds(0.6)
    assert start + len(inner) > seconds(2.1)


def test_the_cut_is_where_it_is_quietest() -> None:
    """A breath in the room beside a hole in it: the fade lies in the hole, not in the breath."""
    audio = take(0.6, 0.6)
    hole = slice(seconds(0.6) - seconds(0.060), seconds(0.6) - seconds(0.045))
    audio[hole] = 0.0

    kept, _ = trim(audio, RATE_HZ)
    assert np.all(kept[: seconds(0.014)] == 0.0)


def test_a_click_before_the_speech_is_no_speech() -> None:
    audio = take(0.6, 0.6)
    audio[seconds(0.1)] = 0.9

    bounds = speech_bounds(audio, RATE_HZ)
    assert bounds is not None
    assert abs(bounds[0] - seconds(0.6)) <= seconds(0.02)


def test_soft_speech_at_the_edges_is_kept() -> None:
    """An s at -42 dBFS before a vowel at -17: 25 dB softer, and still a part of the word."""
    soft = room(0.15, -42.0)
    audio = np.concatenate([room(0.5), soft, speech(1.0), soft, room(0.5)])

    bounds = speech_bounds(audio, RATE_HZ)
    assert bounds is not None
    assert bounds[0] <= seconds(0.51)
    assert bounds[1] >= seconds(1.79)


def test_a_take_without_speech_is_kept_whole() -> None:
    silent = room(1.0, -70.0)
    assert speech_bounds(silent, RATE_HZ) is None
    assert len(trim(silent, RATE_HZ)[0]) == len(silent)


@pytest.mark.parametrize("length", [0, 1, 2, 100, 241])
def test_the_shortest_takes_survive(length: int) -> None:
    assert len(trim(np.full(length, 0.5, np.float32), RATE_HZ)[0]) == length


@pytest.mark.parametrize("level_dbfs", [-120.0, -65.0, -50.0])
@pytest.mark.parametrize("edge_s", [0.0, 0.6])
def test_nothing_jumps_at_a_join(edge_s: float, level_dbfs: float) -> None:
    """Beside a gap the samples move by less than they do in the room tone or the speech itself."""
    trimmed, _ = trim(take(edge_s, edge_s, level_dbfs), RATE_HZ)
    gap = np.zeros(gap_samples(0.35, RATE_HZ), np.float32)
    joined = np.concatenate([trimmed, gap, trimmed])

    steps = np.abs(np.diff(joined))
    speaking = np.abs(np.diff(trimmed)).max()
    for join in (len(trimmed), len(trimmed) + len(gap)):
        assert steps[join - 3 : join + 3].max() < 0.01 * speaking


def test_the_level_falls_to_nothing_without_a_step() -> None:
    """A room at -50 dBFS, in pieces of 3 ms: at its level before the fade, then softer and softer."""
    trimmed, _ = trim(take(0.6, 0.6, -50.0), RATE_HZ)
    pieces = trimmed[-seconds(0.03) :].reshape(10, -1)
    levels = [rms_dbfs(piece) for piece in pieces]
    assert all(abs(level + 50) < 2 for level in levels[:5])
    assert levels[5:] == sorted(levels[5:], reverse=True)
    assert levels[-1] < -75
