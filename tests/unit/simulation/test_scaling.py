"""Fleets that grow and shrink in virtual time, and spot machines that say when they go."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from app.simulation.fleet import FleetShape
from app.simulation.policies import ours
from app.simulation.scaled import played
from app.simulation.scaling import CHART, KUBERNETES, Autoscaler, Scaling, Seen, by_cpu, by_places
from app.simulation.simulation import FrontDoors, Simulation
from app.simulation.traffic import Traffic, trace_of

SHAPE = FleetShape(workers=20, capacity=8, max_voices=8, cached_adapters=64)
DAY = Traffic(
    duration_s=7200, warm_up_s=600, concurrent=70, mean_session_s=60, voices=50, pattern="diurnal", storm=0,
    joins=0, losses=0,
)  # fmt: skip
DOORS = FrontDoors(count=2)


def seen(in_use: int, *, waiting: int = 0, active: int = 10, starting: int = 0) -> Seen:
    return Seen(in_use, waiting, active, starting, capacity=10)


@pytest.mark.parametrize(
    ("load", "by_use", "by_processor"),
    [
        (seen(70), 10, 10),
        (seen(75), 10, 10),  # within the tolerance
        (seen(100), 15, 15),
        (seen(100, waiting=40), 20, 15),  # what waits is not seen by a processor that is full
        (seen(10), 2, 2),
        (seen(100, waiting=40, starting=10), 20, 15),
    ],
)
def test_the_rules(load: Seen, by_use: int, by_processor: int) -> None:
    assert by_places(load, 0.7) == by_use
    assert by_cpu(load, 0.7) == by_processor


def test_workers_come_at_once_and_go_one_by_one_after_a_while() -> None:
    autoscaler = Autoscaler(Scaling(by_places, fewest=2, most=30, **CHART))
    assert autoscaler.change(0, seen(100, waiting=40)) == 10
    assert autoscaler.change(15, seen(100, active=20)) == 0
    quiet = [autoscaler.change(now_s, seen(20, active=20)) for now_s in range(30, 1230, 15)]
    given_up = [30 + 15 * number for number, change in enumerate(quiet) if change]
    assert given_up[0] >= 615
    assert set(quiet) == {0, -1}
    assert min(b - a for a, b in pairwise(given_up)) >= 120


def test_where_nothing_is_said_all_go_together() -> None:
    autoscaler = Autoscaler(Scaling(by_cpu, fewest=2, most=30, **KUBERNETES))
    changes = [autoscaler.change(now_s, seen(10, active=10)) for now_s in range(0, 400, 15)]
    assert sum(changes) <= -8


def test_a_fleet_that_follows_the_day_costs_less_than_a_fixed_one_and_loses_no_session() -> None:
    outcomes = dict(played(trace_of(DAY), SHAPE, DOORS))
    assert outcomes["fixed"].worker_s == SHAPE.workers * DAY.duration_s
    for name in ("by CPU", "by places"):
        assert outcomes[name].worker_s < 0.9 * outcomes["fixed"].worker_s
        assert outcomes[name].cut == 0
        assert outcomes[name].handed_on > 0
    assert outcomes["by places"].refused_rate <= outcomes["by CPU"].refused_rate + 0.01


def test_a_spot_machine_that_says_when_it_goes_cuts_no_session() -> None:
    trace = trace_of(replace(DAY, pattern="steady", joins=3, losses=3))
    without, with_notice = (Simulation(trace, SHAPE, ours, DOORS, notice_s=notice_s).run() for notice_s in (0.0, 120.0))
    assert without.cut > 0
    assert without.handed_on == 0
    assert with_notice.cut == 0
    assert 0 < with_notice.handed_on < without.cut, "most sessions end within the notice"
    assert with_notice.moved == with_notice.handed_on
