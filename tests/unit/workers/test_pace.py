"""A worker's pace: how many sessions a machine can serve in real time, from two that were measured."""

from __future__ import annotations

import pytest

from workers.pace import RESERVE, Pace, between


@pytest.mark.parametrize(
    ("alone_s", "full_s", "sessions"),
    [
        (0.3, 1.2, 3),  # 0.3 more for each: 0.9 holds with the reserve, and 1.2 does not
        (0.8, 1.6, 1),
        (0.5, 0.95, 3),
        (1.7, 4.0, 1),  # slower than speech: one is served all the same
    ],
)
def test_as_many_sessions_are_taken_as_real_time_allows_and_one_at_least(
    alone_s: float, full_s: float, sessions: int
) -> None:
    assert between(Pace(1, alone_s), Pace(4, full_s), least=1).sessions == sessions


def test_a_capacity_that_is_set_stands() -> None:
    assert between(Pace(1, 2.0), Pace(4, 5.0), least=3).sessions == 3


def test_the_pace_that_is_reported_is_that_of_the_sessions_that_are_taken() -> None:
    pace = between(Pace(1, 0.3), Pace(4, 1.2), least=1)
    assert (pace.sessions, round(pace.s_per_s, 6)) == (3, 0.9)
    assert pace.holds
    assert pace.s_per_s * RESERVE <= 1
