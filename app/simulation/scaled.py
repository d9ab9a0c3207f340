"""`carillon simulate --scale`: one trace, a fixed fleet beside fleets that grow and shrink by a rule."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import ceil
from typing import TextIO

from app.simulation.fleet import FleetShape
from app.simulation.policies import ours
from app.simulation.results import Outcome
from app.simulation.scaling import CHART, KUBERNETES, Scaling, by_cpu, by_places
from app.simulation.simulation import FrontDoors, Simulation
from app.simulation.traffic import Trace, Traffic, trace_of

FEWEST_SHARE = 0.1
"""Of the fixed fleet's workers, that are always there."""

HEADINGS = ("fleet", "worker h", "$", "refused", "waited P99 s", "handed on", "cut")


def fleets(shape: FleetShape) -> dict[str, tuple[FleetShape, Scaling | None]]:
    """What is compared: no fleet has more workers than the fixed one, and those that change begin with half as many."""
    fewest, half = ceil(FEWEST_SHARE * shape.workers), replace(shape, workers=ceil(shape.workers / 2))
    return {
        "fixed": (shape, None),
        "by CPU": (half, Scaling(by_cpu, fewest, shape.workers, **KUBERNETES)),
        "by places": (half, Scaling(by_places, fewest, shape.workers, **CHART)),
    }


def compare(
    traffic: Traffic, shape: FleetShape, doors: FrontDoors, *, gpu_hour: float, notice_s: float, out: TextIO
) -> None:
    """A row for each fleet; losses say so `notice_s` before."""
    trace = trace_of(traffic)
    out.write(
        f"{len(trace.start_s):,} sessions of {traffic.mean_session_s:g} s in {traffic.duration_s / 3600:g} h, "
        f"{traffic.pattern} pace; at most {shape.workers:,} workers of {shape.capacity} places; {traffic.losses} lost "
        f"with {notice_s:g} s of notice; seed {traffic.seed}\n"
    )
    out.write(_line(HEADINGS))
    for name, outcome in played(trace, shape, doors, notice_s=notice_s):
        hours = outcome.worker_s / 3600
        cells = f"{hours:,.0f}", f"{hours * gpu_hour:,.0f}", f"{outcome.refused_rate:.2%}"
        counts = f"{outcome.room_wait_p99_s:.2f}", f"{outcome.handed_on:,}", f"{outcome.cut:,}"
        out.write(_line((name, *cells, *counts)))
        out.flush()


def played(
    trace: Trace, shape: FleetShape, doors: FrontDoors, *, notice_s: float = 0.0
) -> Iterator[tuple[str, Outcome]]:
    for name, (begins, scaling) in fleets(shape).items():
        yield name, Simulation(trace, begins, ours, doors, scaling=scaling, notice_s=notice_s).run()


def _line(cells: tuple[str, ...]) -> str:
    name, *others = cells
    return f"{name:<12}" + "".join(f"{cell:>14}" for cell in others) + "\n"
