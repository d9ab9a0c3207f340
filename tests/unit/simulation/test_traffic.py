"""When sessions start, by the pattern of their pace."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from app.simulation.traffic import Pattern, Traffic, trace_of

TRAFFIC = Traffic(duration_s=4000, warm_up_s=400, concurrent=600, mean_session_s=60, voices=100, storm=0, zipf=1)
MEAN_PER_S = 10.0


def pace(pattern: Pattern, from_share: float, until_share: float) -> float:
    """Starts a second in a part of the duration."""
    trace = trace_of(Traffic(**{**fields(), "pattern": pattern}))
    from_s, until_s = (TRAFFIC.warm_up_s + share * TRAFFIC.duration_s for share in (from_share, until_share))
    return float(np.count_nonzero((trace.start_s >= from_s) & (trace.start_s < until_s))) / (until_s - from_s)


def fields() -> dict[str, float]:
    return {name: getattr(TRAFFIC, name) for name in TRAFFIC.__slots__}


@pytest.mark.parametrize("pattern", ["steady", "diurnal", "bursts"])
def test_a_changing_pace_is_as_much_on_average(pattern: Pattern) -> None:
    assert pace(pattern, 0, 1) == pytest.approx(MEAN_PER_S, rel=0.1)


def test_a_day_is_quiet_at_its_ends_and_busy_in_its_middle() -> None:
    assert pace("diurnal", 0, 0.1) < 0.6 * MEAN_PER_S
    assert pace("diurnal", 0.45, 0.55) > 1.4 * MEAN_PER_S


def test_a_flash_crowd_is_three_times_the_pace_for_a_while_and_half_of_it_wants_one_voice() -> None:
    assert pace("flash-crowd", 0.25, 0.35) == pytest.approx(3 * MEAN_PER_S, rel=0.1)
    assert pace("flash-crowd", 0.4, 1) == pytest.approx(MEAN_PER_S, rel=0.1)
    trace = trace_of(Traffic(**{**fields(), "pattern": "flash-crowd"}))
    one = np.count_nonzero(trace.voice == TRAFFIC.voices)
    assert one == pytest.approx(MEAN_PER_S * 400, rel=0.15)


def test_bursts_vary_more_than_chance_does() -> None:
    def spread(pattern: Pattern) -> float:
        counts, _ = np.histogram(trace_of(Traffic(**{**fields(), "pattern": pattern})).start_s, bins=220)
        return float(counts.var() / counts.mean())

    assert spread("steady") < 1.5
    assert spread("bursts") > 4


@pytest.mark.parametrize("pattern", get_args(Pattern))
def test_starts_are_in_order_and_within_the_trace(pattern: Pattern) -> None:
    trace = trace_of(Traffic(**{**fields(), "pattern": pattern}))
    assert np.all(np.diff(trace.start_s) >= 0)
    assert 0 <= trace.start_s[0] <= trace.start_s[-1] <= TRAFFIC.end_s
