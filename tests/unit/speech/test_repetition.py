from __future__ import annotations

import numpy as np
import pytest

from app.speech.repetition import repeated_frames
from app.speech.token_layout import TOKENS_PER_FRAME

DRAW = np.random.default_rng(7)


def frames(count: int) -> np.ndarray:
    """Frames of which no two are alike."""
    return np.arange(count * TOKENS_PER_FRAME).reshape(count, TOKENS_PER_FRAME)


def codes(*stretches: np.ndarray) -> list[int]:
    return np.concatenate(stretches).flatten().tolist()


@pytest.mark.parametrize("period", [1, 2, 3, 4])
def test_a_pattern_counts_from_its_first_frame_to_its_last(period: int) -> None:
    loop = np.tile(frames(period) + 900, (20 // period, 1))
    assert repeated_frames(codes(frames(30), loop, frames(9) + 5_000)) == len(loop)


def test_a_pattern_of_more_frames_than_that_is_speech() -> None:
    assert repeated_frames(codes(np.tile(frames(5), (6, 1)))) == 0


def test_a_stuck_voice_that_wavers_in_two_codes_a_frame_is_stuck() -> None:
    loop = np.tile(frames(1), (20, 1))
    loop[:, 5:] = DRAW.integers(10_000, 20_000, (20, 2))
    assert repeated_frames(codes(loop)) == 20
    loop[:, 4] = np.arange(30_000, 30_020)
    assert repeated_frames(codes(loop)) == 0


def test_the_longest_of_several_stretches_counts() -> None:
    assert repeated_frames(codes(np.tile(frames(1), (5, 1)), frames(10) + 99, np.tile(frames(1) + 7_000, (9, 1)))) == 9


def test_half_a_pattern_seen_again_is_no_loop() -> None:
    pattern = frames(4)
    assert repeated_frames(codes(pattern, pattern[:3])) == 0
    assert repeated_frames(codes(pattern, pattern)) == 8


@pytest.mark.parametrize("count", [0, 1, 2, 13])
def test_what_is_too_short_to_repeat_does_not(count: int) -> None:
    assert repeated_frames(list(range(count))) == 0


def test_a_partial_frame_at_the_end_does_not_count() -> None:
    assert repeated_frames([*codes(np.tile(frames(1), (3, 1))), 0, 1, 2]) == 3
