"""What follows from sessions that were measured alone and beside a flood."""

from __future__ import annotations

import io
from collections import Counter

import pytest

from app.bench.floods import WAYS
from app.bench.sessions import MeasuredSession
from app.bench.tenants import Beside, Lag, run, table
from app.errors import ConfigurationError


def session(ttfa_s: float) -> MeasuredSession:
    return MeasuredSession(arrivals=[(ttfa_s, 480), (ttfa_s + 1, 480)])


def report(*ways: Beside) -> dict[str, object]:
    limits = {"sessions": 2}
    measured = [one.report() for one in ways]
    return {"places": 4, "limits": limits, "pace": "realtime", "rounds": 2, "goal": 1.1, "ways": measured}


def test_a_flood_is_judged_by_the_p95_beside_it_to_that_alone() -> None:
    alone, beside = [session(0.1 * n) for n in range(1, 6)], [session(0.2 * n) for n in range(1, 6)]
    one = Beside("speech", alone, beside, answers=Counter({"429": 7}))
    said = one.report()
    assert (said["alone_ms"], said["beside_ms"]) == ({"p50": 300, "p95": 500}, {"p50": 600, "p95": 1000})
    assert (said["ratio"], said["flood"], said["sessions"]) == (2.0, {"429": 7}, 5)


def test_how_late_the_loop_was_is_read_from_the_metrics() -> None:
    before, after = (
        Lag.told(
            "# TYPE carillon_loop_lag_seconds histogram\n"
            f'carillon_loop_lag_seconds_bucket{{le="0.01"}} 3.0\n'
            f'carillon_loop_lag_seconds_bucket{{le="0.025"}} {in_time}\n'
            f"carillon_loop_lag_seconds_count {wakes}\n"
        )
        for wakes, in_time in ((10.0, 10.0), (30.0, 29.0))
    )
    assert after.since(before) == Lag(20, 19)
    assert (Lag(20, 19) + Lag(20, 20)).late_share == 0.025


def test_sessions_that_were_never_heard_leave_no_ratio() -> None:
    one = Beside("starts", [session(0.1)], [MeasuredSession()], errors=Counter(overloaded=1))
    assert (one.report()["ratio"], one.report()["errors"]) == (None, {"overloaded": 1})
    assert "0 of 1 within" in table(report(one))


def test_the_table_has_a_line_for_each_flood_and_what_came_of_it() -> None:
    level = Beside("keyless", [session(0.1)], [session(0.105)], answers=Counter({"401": 40}), lag=Lag(200, 199))
    worse = Beside("books", [session(0.1)], [session(0.3)], answers=Counter({"429": 2, "400": 3}))
    lines = table(report(level, worse)).splitlines()
    assert "limits of the flooding project: sessions 2" in lines[0]
    assert "1.05×       0.5%  401: 40" in lines[2]
    assert "3.00×          –  400: 3, 429: 2" in lines[3]
    assert lines[-1].startswith("1 of 2 within 1.1 of alone")


def test_a_flood_that_there_is_not_is_named_with_those_that_there_are() -> None:
    with pytest.raises(ConfigurationError, match=r"no flood 'rain'.*half-open"):
        run(url="http://a", key=None, voice="slt", ways=["rain"], progress=print, out=io.StringIO())


def test_every_flood_says_what_it_does() -> None:
    assert all(len(way.says) > 10 for way in WAYS.values())
