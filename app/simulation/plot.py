"""What a plot of `carillon simulate` shows of each policy: its load, what was warm when and of whom, what it loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from app.simulation.chart import Curve, Panel, svg
from app.simulation.policies import POLICIES
from app.simulation.results import Outcome, Sample
from app.simulation.traffic import Trace

POINTS = 60
"""Of a curve over time: each sums up some samples."""

WARM = "Starts whose adapter is at hand (dotted: that could be)"


def plot(trace: Trace, outcomes: Mapping[str, Outcome]) -> str:
    """The SVG of the `outcomes` of policies on the `trace`."""
    peaks = _over_time(trace, outcomes, "P99 worker's load ÷ mean", _peak, "{:.1f}".format, floor=1.0)
    warm = _over_time(
        trace,
        outcomes,
        WARM,
        _warm_rate,
        "{:.0%}".format,
        repeats=True,
    )
    ranked = Panel(
        title="… by how much the voice is wanted",
        x_label="rank of the voice",
        curves=[
            Curve(name, _style(name), [(_middle(i), warm / served) for i, (served, warm) in _octaves(outcome)])
            for name, outcome in outcomes.items()
        ],
        limit=[(_middle(i), repeated / starts) for i, (starts, repeated) in enumerate(trace.octaves) if starts],
        y_format="{:.0%}".format,
        octaves=True,
    )
    loaded = _over_time(trace, outcomes, "Adapters loaded, TB", _loaded_tb, "{:g}".format)
    title = f"carillon simulate: {trace.traffic.voices:,} voices, {len(trace.start_s):,} sessions"
    return svg(title, [peaks, warm, ranked, loaded])


def _over_time(
    trace: Trace,
    outcomes: Mapping[str, Outcome],
    title: str,
    value: Callable[[list[Sample]], float],
    y_format: Callable[[float], str],
    *,
    floor: float = 0.0,
    repeats: bool = False,
) -> Panel:
    """`value` of a run of samples, over minutes since the warm-up; `repeats`: with the part that could be warm."""
    traffic = trace.traffic

    def minutes(at_s: float) -> float:
        return (at_s - traffic.warm_up_s) / 60

    parts = {name: _parts(outcome.samples) for name, outcome in outcomes.items()}
    spans = [(part[0].at_s, part[-1].at_s) for part in next(iter(parts.values()))] if repeats else []
    begins_s, ends_s = traffic.storm_s
    return Panel(
        title=title,
        x_label="minutes; upright: a worker is lost, or joins" if trace.changes else "minutes",
        curves=[
            Curve(name, _style(name), [(minutes(part[-1].at_s), value(part)) for part in found])
            for name, found in parts.items()
        ],
        y_format=y_format,
        floor=floor,
        limit=[(minutes(until_s), trace.requested_between(from_s, until_s)) for from_s, until_s in spans],
        bands=[(minutes(begins_s), minutes(ends_s), "storm")] if traffic.storm else [],
        marks=[minutes(at_s) for at_s, _, _ in trace.changes],
    )


def _parts(samples: list[Sample]) -> list[list[Sample]]:
    """The samples in runs of equal length, each of which begins with the last of the one before."""
    length = max(1, len(samples) // POINTS)
    return [samples[i : i + length + 1] for i in range(0, len(samples) - length, length)]


def _peak(part: list[Sample]) -> float:
    return float(np.mean([sample.p99_over_mean for sample in part[1:]]))


def _warm_rate(part: list[Sample]) -> float:
    served = part[-1].served - part[0].served
    return (part[-1].warm - part[0].warm) / max(1, served)


def _loaded_tb(part: list[Sample]) -> float:
    return part[-1].cold_bytes / 1e12


def _octaves(outcome: Outcome) -> list[tuple[int, list[int]]]:
    return [(i, counts) for i, counts in enumerate(outcome.octaves) if counts[0]]


def _middle(octave: int) -> float:
    """Of the ranks 2^octave to 2^(octave+1) − 1, geometrically; the first octave is rank 1 alone."""
    return (2**octave * (2 ** (octave + 1) - 1)) ** 0.5


def _style(policy: str) -> int:
    """A policy has the same style whichever others are shown."""
    return list(POLICIES).index(policy)
