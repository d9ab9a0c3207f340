"""`carillon simulate`: our placement beside that of others on one trace of traffic: a table, JSON, a plot."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TextIO

from app.simulation.fleet import FleetShape
from app.simulation.plot import matplotlib, plot
from app.simulation.policies import POLICIES
from app.simulation.results import Outcome
from app.simulation.simulation import FrontDoors, Simulation, moved_by_a_join, workers_needed
from app.simulation.traffic import Trace, Traffic, trace_of

Report = dict[str, Any]
Played = tuple[Outcome, int | None]

REFUSED = 0.01
"""The service for which a fleet is sized: at most this part of the starts finds no room."""

COLUMNS = (
    ("policy", "policy", "{}"),
    ("warm", "warm_rate", "{:.1%}"),
    ("wait P99 s", "wait_p99_s", "{:.2f}"),
    ("loaded TB", "cold_bytes", "{:.2f}"),
    ("P99/mean", "p99_over_mean", "{:.2f}"),
    ("queued", "queued_rate", "{:.2%}"),
    ("refused", "refused_rate", "{:.2%}"),
    ("claims", "claims_per_start", "{:.3f}"),
    ("moved/loss", "moved_per_loss", "{:.1f}"),
    ("GPUs", "gpus", "{}"),
    ("$/audio h", "audio_hour", "{:.4f}"),
)
"""Of the table: heading, key of a row, format."""


def simulate(
    traffic: Traffic,
    shape: FleetShape,
    doors: FrontDoors,
    *,
    policies: Sequence[str] = tuple(POLICIES),
    gpu_hour: float,
    find_size: bool,
    json_path: Path | None = None,
    plot_path: Path | None = None,
    jobs: int = 1,
    out: TextIO,
) -> None:
    """Run `policies` on the trace of `traffic`, so many at a time, and write a row of the table for each."""
    if plot_path is not None:
        matplotlib()  # its absence is an error now, not when all has been played
    trace = trace_of(traffic)
    rows: list[Report] = []
    outcomes: dict[str, Outcome] = {}
    out.write(heading(trace, shape, doors))
    out.write(line({key: title for title, key, _ in COLUMNS}, formatted=False))
    play = partial(_play, traffic=traffic, shape=shape, doors=doors, find_size=find_size)
    for name, (outcome, gpus) in zip(policies, _mapped(play, policies, jobs), strict=True):
        outcomes[name] = outcome
        rows.append({"policy": name, **row(trace, shape, outcomes[name], gpus=gpus, gpu_hour=gpu_hour)})
        out.write(line(rows[-1]))
        out.flush()
    moved = moved_by_a_join(shape)
    out.write(
        f"{trace.requested_before:.1%} of the starts are of a voice that was requested before: no more can be warm\n"
        f"a worker that joins is the new home of {moved:.2%} of the voices, where its share is "
        f"{1 / (shape.workers + 1):.2%}; no running session moves\n"
    )
    if json_path is not None:
        report = {
            "traffic": asdict(traffic),
            "fleet": asdict(shape),
            "doors": asdict(doors),
            "heard_before": trace.requested_before,
            "moved_by_a_join": moved,
            "policies": rows,
        }
        json_path.write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    if plot_path is not None:
        plot_path.write_text(plot(trace, outcomes), "utf-8")


def _mapped(play: Callable[[str], Played], policies: Sequence[str], jobs: int) -> Iterator[Played]:
    """What each of the `policies` comes to, in their order; with several jobs, each in a process of its own."""
    if jobs == 1 or len(policies) == 1:
        yield from map(play, policies)
        return
    with ProcessPoolExecutor(min(jobs, len(policies)), mp_context=get_context("spawn")) as pool:
        yield from pool.map(play, policies)


def _play(name: str, *, traffic: Traffic, shape: FleetShape, doors: FrontDoors, find_size: bool) -> Played:
    """What becomes of the trace, and how many GPUs the policy needs where that is wanted."""
    trace = trace_of(traffic)
    outcome = Simulation(trace, shape, POLICIES[name], doors).run()
    return outcome, workers_needed(trace, shape, POLICIES[name], doors, refused=REFUSED) if find_size else None


def row(trace: Trace, shape: FleetShape, outcome: Outcome, *, gpus: int | None, gpu_hour: float) -> Report:
    """What became of the trace in this fleet, and what an hour of audio costs, in one of the `gpus` needed if known."""
    served = outcome.mean_concurrent if gpus is None else trace.traffic.concurrent * (1 - REFUSED)
    gpus = shape.workers if gpus is None else gpus
    return {
        "starts": outcome.starts,
        "queued": outcome.queued,
        "queued_rate": outcome.queued_rate,
        "room_wait_p99_s": outcome.room_wait_p99_s,
        "refused": outcome.refused,
        "refused_rate": outcome.refused_rate,
        "warm_rate": outcome.warm_rate,
        "wait_p99_s": outcome.wait_p99_s,
        "cold_loads": outcome.cold_loads,
        "cold_bytes": outcome.cold_bytes,
        "p99_over_mean": outcome.p99_over_mean,
        "claims_per_start": outcome.claims_per_start,
        "refused_claims": outcome.refused_claims,
        "cut": outcome.cut,
        "moved_per_loss": outcome.moved_per_loss,
        "mean_concurrent": outcome.mean_concurrent,
        "gpus": gpus,
        "audio_hour": gpus * gpu_hour / served if served else None,
    }


def heading(trace: Trace, shape: FleetShape, doors: FrontDoors) -> str:
    traffic = trace.traffic
    return (
        f"{shape.workers:,} workers of {shape.capacity} places, {shape.max_voices} slots, {shape.cached_adapters} "
        f"adapters at hand; {traffic.voices:,} voices, Zipf {traffic.zipf:g}\n{len(trace.start_s):,} sessions of "
        f"{traffic.mean_session_s:g} s, {traffic.concurrent:,.0f} wanted at once; {traffic.losses} workers lost, "
        f"{traffic.joins} join; {traffic.pattern} pace, a storm of {traffic.storm:.0%}; seed {traffic.seed}\n"
        f"{doors.count} front doors, each with a view at most {doors.refresh_s:g} s old; a start waits at most "
        f"{doors.queue_s:g} s for room\n"
    )


def line(row: Report, *, formatted: bool = True) -> str:
    cells: list[str] = []
    for _, key, form in COLUMNS:
        value = row[key]
        if formatted:
            value = "–" if value is None else form.format(value / 1e12 if key == "cold_bytes" else value)
        cells.append(f"{value:<18}" if key == "policy" else f"{value:>11}")
    return "".join(cells).rstrip() + "\n"
