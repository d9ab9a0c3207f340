"""`carillon simulate`: our placement beside that of others on one trace of traffic, as a table and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from app.core.policies import POLICIES
from app.core.simulation import (
    FleetShape,
    Policy,
    Simulation,
    Trace,
    Traffic,
    moved_by_a_join,
    trace_of,
    workers_needed,
)

Report = dict[str, Any]

REFUSED = 0.01
"""The service for which a fleet is sized: at most this part of the starts finds no room."""

COLUMNS = (
    ("policy", "policy", "{}"),
    ("warm", "warm_rate", "{:.1%}"),
    ("wait P99 s", "wait_p99_s", "{:.2f}"),
    ("loaded TB", "cold_bytes", "{:.2f}"),
    ("P99/mean", "p99_over_mean", "{:.2f}"),
    ("refused", "refused_rate", "{:.2%}"),
    ("moved/loss", "moved_per_loss", "{:.1f}"),
    ("GPUs", "gpus", "{}"),
    ("$/audio h", "audio_hour", "{:.4f}"),
)
"""Of the table: heading, key of a row, format."""


def simulate(
    traffic: Traffic, shape: FleetShape, *, gpu_hour: float, find_size: bool, json_path: Path | None, out: TextIO
) -> None:
    """Run every policy on the trace of `traffic` and write a row of the table for each."""
    trace = trace_of(traffic)
    rows: list[Report] = []
    out.write(heading(trace, shape))
    out.write(line({key: title for title, key, _ in COLUMNS}, formatted=False))
    for name, policy in POLICIES.items():
        rows.append({"policy": name, **measure(trace, shape, policy, gpu_hour=gpu_hour, find_size=find_size)})
        out.write(line(rows[-1]))
        out.flush()
    moved = moved_by_a_join(shape)
    out.write(
        f"{trace.heard_before:.1%} of the starts are of a voice that was wanted before: no more can be warm\n"
        f"a worker that joins is the new home of {moved:.2%} of the voices, where its share is "
        f"{1 / (shape.workers + 1):.2%}; no running session moves\n"
    )
    if json_path is not None:
        report = {
            "traffic": asdict(traffic),
            "fleet": asdict(shape),
            "heard_before": trace.heard_before,
            "moved_by_a_join": moved,
            "policies": rows,
        }
        json_path.write_text(json.dumps(report, indent=2) + "\n", "utf-8")


def measure(trace: Trace, shape: FleetShape, policy: Policy, *, gpu_hour: float, find_size: bool) -> Report:
    """A row: what became of the trace in this fleet, and what an hour of audio costs, `find_size` in one that fits."""
    outcome = Simulation(trace, shape, policy).run()
    gpus = workers_needed(trace, shape, policy, refused=REFUSED) if find_size else shape.workers
    served = trace.traffic.concurrent * (1 - REFUSED) if find_size else outcome.mean_concurrent
    return {
        "starts": outcome.starts,
        "refused": outcome.refused,
        "refused_rate": outcome.refused_rate,
        "warm_rate": outcome.warm_rate,
        "wait_p99_s": outcome.wait_p99_s,
        "cold_loads": outcome.cold_loads,
        "cold_bytes": outcome.cold_bytes,
        "p99_over_mean": outcome.p99_over_mean,
        "cut": outcome.cut,
        "moved_per_loss": outcome.moved_per_loss,
        "mean_concurrent": outcome.mean_concurrent,
        "gpus": gpus,
        "audio_hour": gpus * gpu_hour / served if served else None,
    }


def heading(trace: Trace, shape: FleetShape) -> str:
    traffic = trace.traffic
    return (
        f"{shape.workers:,} workers of {shape.capacity} places, {shape.max_voices} slots, {shape.cached_adapters} "
        f"adapters at hand; {traffic.voices:,} voices, Zipf {traffic.zipf:g}\n{len(trace.start_s):,} sessions of "
        f"{traffic.mean_session_s:g} s, {traffic.concurrent:,.0f} wanted at once; {traffic.losses} workers lost, "
        f"{traffic.joins} join; a storm of {traffic.storm:.0%}; seed {traffic.seed}\n"
    )


def line(row: Report, *, formatted: bool = True) -> str:
    cells: list[str] = []
    for _, key, form in COLUMNS:
        value = row[key]
        if formatted:
            value = "–" if value is None else form.format(value / 1e12 if key == "cold_bytes" else value)
        cells.append(f"{value:<18}" if key == "policy" else f"{value:>11}")
    return "".join(cells).rstrip() + "\n"
