"""What a fleet bench plans and concludes; the bench itself runs in tests/integration/bench/test_front_door.py."""

from __future__ import annotations

import itertools
from random import Random
from typing import Any

import pytest

from app.bench.figures import (
    Measured,
    Percentiles,
    Starts,
    Step,
    arrivals,
    bytes_per_session,
    most_starts_per_s,
    percentiles_ms,
    sessions_per_core,
)
from app.bench.front_door import reckoned, table
from app.bench.load_generator import merged, speech
from app.bench.replay_fleet import Cores


def spread(p99: float, p50: float = 0.1) -> Percentiles:
    return Percentiles(count=100, p50=p50, p95=p99, p99=p99, most=p99)


def step(held: float, p99: float, **changes: Any) -> Step:
    """A step at which frames take `p99` through the front door, and 1 ms past it."""
    values: dict[str, Any] = {
        "wanted": round(held),
        "held": held,
        "seconds": 5.0,
        "messages_per_s": 10 * held,
        "texts_per_s": held,
        "through": spread(p99),
        "direct": spread(1.0),
        "cpu": 0.001 * held,
        "rss_bytes": round(1_000 * held + 50_000),
        "starts_per_s": 1.0,
        "start_ms": None,
        "refused": 0,
        "errors": {},
    }
    return Step(**{**values, **changes})


def starts(rate: float, **changes: Any) -> Starts:
    values: dict[str, Any] = {
        "offered_per_s": rate,
        "begun": 100,
        "done": 100,
        "start_ms": spread(20.0),
        "cpu": 0.5,
        "refused": 0,
        "errors": {},
        "redis_calls": 2.0,
    }
    return Starts(**{**values, **changes})


def test_arrivals_come_at_the_configured_rate_and_independently() -> None:
    moments = list(itertools.islice(arrivals(50.0, Random(1)), 10_000))
    gaps = [later - earlier for earlier, later in itertools.pairwise(moments)]
    mean_s = sum(gaps) / len(gaps)
    assert mean_s == pytest.approx(1 / 50, rel=0.05)
    # The gaps of a Poisson process spread as far as their mean.
    assert (sum((gap - mean_s) ** 2 for gap in gaps) / len(gaps)) ** 0.5 == pytest.approx(mean_s, rel=0.05)


def test_the_ramp_and_the_arrivals_come_in_order_of_time() -> None:
    both = merged(iter([1.0, 2.0, 3.0]), iter([0.5, 2.5, 3.5, 4.5]))
    assert list(itertools.islice(both, 7)) == [0.5, 1.0, 2.0, 2.5, 3.0, 3.5, 4.5]


def test_a_session_is_sent_as_much_text_as_it_lasts_turn_by_turn_and_then_its_end() -> None:
    pieces = list(speech(30.0, 50.0, Random(1)))
    moments = [due_s for due_s, _ in pieces]
    text = "".join(piece for _, piece in pieces)
    assert moments == sorted(moments)
    assert pieces[-1][1] == "" and all(piece for _, piece in pieces[:-1])
    assert len(text) / 14 == pytest.approx(30.0, abs=1.0)
    assert text.rstrip().endswith(".")
    # Written at a model's pace it would all be there after a few seconds; a turn waits for the one before it.
    assert moments[-1] > 20


def test_even_the_shortest_session_says_a_word() -> None:
    *said, end = speech(0.0, 50.0, Random(1))
    assert "".join(piece for _, piece in said).strip() == "Yes."
    assert end[1] == ""


def test_a_percentile_is_the_smallest_value_that_covers_its_share() -> None:
    values = percentiles_ms([number * 1_000_000 for number in range(100, 0, -1)])
    assert values is not None
    assert (values.count, values.p50, values.p95, values.p99, values.most) == (100, 50.0, 95.0, 99.0, 100.0)
    assert percentiles_ms([3_000_000]) == Percentiles(count=1, p50=3.0, p95=3.0, p99=3.0, most=3.0)
    assert percentiles_ms([]) is None


def test_what_the_front_door_adds_is_the_difference_to_the_direct_way() -> None:
    added = step(100, 3.5).added_ms
    assert added is not None and added.p99 == 2.5
    assert step(100, 3.5, direct=None).added_ms is None


def test_a_core_carries_what_lies_between_the_last_step_below_the_limit_and_the_first_above() -> None:
    assert sessions_per_core([step(100, 2.0), step(200, 4.0), step(300, 8.0)]) == pytest.approx(250.0)
    assert sessions_per_core([step(100, 2.0), step(200, 4.0)]) == 200
    assert sessions_per_core([step(100, 9.0)]) is None


def test_a_step_with_errors_or_refusals_is_not_carried() -> None:
    assert sessions_per_core([step(100, 2.0), step(200, 2.0, errors={"worker_lost": 1})]) == 100
    assert sessions_per_core([step(100, 2.0, refused=1)]) is None


def test_memory_per_session_is_the_slope_over_the_steps() -> None:
    assert bytes_per_session([step(100, 1.0), step(200, 1.0), step(400, 1.0)]) == pytest.approx(1_000)
    assert bytes_per_session([step(100, 1.0)]) is None


def test_starts_are_held_when_nearly_all_are_served_soon_and_without_error() -> None:
    assert starts(10).hold
    assert not starts(10, done=90).hold
    assert not starts(10, start_ms=spread(400.0)).hold
    assert not starts(10, errors={"worker_lost": 1}).hold
    assert most_starts_per_s([starts(10), starts(20), starts(40, done=50)]) == 20
    assert most_starts_per_s([]) is None


def test_the_report_says_what_was_measured_and_what_follows() -> None:
    measured = Measured(steps=(step(100, 2.0), step(200, 8.0)), starts=(starts(25), starts(50, done=10)))
    report = {
        "plan": {"length_s": 60.0, "sessions_per_socket": 32, "tokens_per_s": 50.0},
        "fleet": "4 workers that replay 1 frame(s) a message",
        "cores": str(Cores()),
        "load_average": [0.5, 1.5],
        "placements_per_s": {"100": 12_345, "1000": 1_234},
        **reckoned(measured),
    }
    printed = table(report)
    assert "sessions per core at P99 added ≤ 5 ms: 167" in printed
    assert "starts per second that are held: 25" in printed
    assert "12,345 of 100 workers" in printed
    assert "load average 0.5 before, 1.5 after" in printed
    assert report["steps"][0]["added_ms"]["p99"] == 1.0
    assert report["steps"][0]["cpu_us_per_message"] == pytest.approx(100.0)


def test_a_report_without_stamps_or_starts_shows_gaps_and_no_zeros() -> None:
    real = step(4, 1.0, through=None, direct=None, cpu=None, rss_bytes=None)
    report = {
        "plan": {"length_s": 60.0, "sessions_per_socket": 32, "tokens_per_s": 50.0},
        "fleet": "http://127.0.0.1:8000",
        "cores": "as the running fleet has them",
        "load_average": [0.5, 1.5],
        "placements_per_s": {},
        **reckoned(Measured(steps=(real,), starts=())),
    }
    assert report["sessions_per_core"] is None and report["bytes_per_session"] is None
    assert "sessions per core at P99 added ≤ 5 ms: –" in table(report)
