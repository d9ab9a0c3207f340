"""What a plot of `carillon simulate` shows of each policy: its load, what was warm when and of whom, what it loaded.

The figure is matplotlib's; it comes with the extra `plots`, and is imported when a plot is drawn.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from app.errors import ConfigurationError
from app.simulation.policies import POLICIES
from app.simulation.results import Outcome, Sample
from app.simulation.traffic import Trace

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

POINTS = 60
"""Of a curve over time: each sums up some samples."""

LINE_STYLES = ("-", "--", "-", "--", ":", "-.", "--", ":", "-.")
"""By a policy's place in the table, so that curves differ by more than colour."""

# The same input gives the same bytes: no date, no random ids; letters stay text.
STYLE = {"svg.hashsalt": "carillon", "svg.fonttype": "none", "axes.grid": True, "grid.alpha": 0.3, "font.size": 9}
METADATA: dict[str, Any] = {"Date": None, "Creator": "carillon simulate"}


def matplotlib() -> ModuleType:
    """The library. Raises ConfigurationError where it is not installed."""
    try:
        return import_module("matplotlib")
    except ImportError:
        raise ConfigurationError("a plot needs matplotlib; `pip install matplotlib`, or leave out --plot") from None


def plot(trace: Trace, outcomes: Mapping[str, Outcome]) -> str:
    """The SVG of the `outcomes` of policies on the `trace`. Raises ConfigurationError without matplotlib."""
    with matplotlib().rc_context(STYLE):
        return _svg(_figure(trace, outcomes))


def _svg(figure: Figure) -> str:
    drawing = io.StringIO()
    figure.savefig(drawing, format="svg", metadata=METADATA)
    return drawing.getvalue()


def _figure(trace: Trace, outcomes: Mapping[str, Outcome]) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6.5), layout="constrained")
    figure.suptitle(f"carillon simulate: {trace.traffic.voices:,} voices, {len(trace.start_s):,} sessions")
    peaks, warm, ranked, loaded = figure.subplots(2, 2).flat
    _over_time(peaks, trace, outcomes, _peak, title="P99 worker's load ÷ mean")
    _over_time(warm, trace, outcomes, _warm_rate, title="Starts whose adapter is at hand (grey: that could be)")
    _draw_limit_over_time(warm, trace, outcomes)
    _by_rank(ranked, trace, outcomes)
    _over_time(loaded, trace, outcomes, _loaded_tb, title="Adapters loaded, TB")
    figure.legend(*peaks.get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False)
    for axes in (warm, ranked):
        axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
        axes.set_ylim(bottom=0)
    return figure


def _over_time(
    axes: Axes, trace: Trace, outcomes: Mapping[str, Outcome], value: Callable[[list[Sample]], float], *, title: str
) -> None:
    """`value` of a run of samples, over minutes since the warm-up."""
    for name, outcome in outcomes.items():
        parts = _parts(outcome.samples)
        axes.plot([_minutes(trace, part[-1].at_s) for part in parts], [value(part) for part in parts], **_style(name))
    if trace.traffic.storm:
        begins_s, ends_s = trace.traffic.storm_s
        axes.axvspan(_minutes(trace, begins_s), _minutes(trace, ends_s), alpha=0.15, color="grey", label="_storm")
    for at_s, _, _ in trace.changes:
        axes.axvline(_minutes(trace, at_s), color="grey", linestyle=":", linewidth=0.8)
    axes.set_title(title)
    axes.set_xlabel("minutes; upright: a worker is lost, or joins" if trace.changes else "minutes")


def _draw_limit_over_time(axes: Axes, trace: Trace, outcomes: Mapping[str, Outcome]) -> None:
    """The part of the starts that is of a voice requested before: no policy can have more of them warm."""
    parts = _parts(next(iter(outcomes.values())).samples)
    spans = [(part[0].at_s, part[-1].at_s) for part in parts]
    limit = [trace.requested_between(from_s, until_s) for from_s, until_s in spans]
    axes.plot([_minutes(trace, until_s) for _, until_s in spans], limit, color="grey", linestyle=":", label="_limit")


def _by_rank(axes: Axes, trace: Trace, outcomes: Mapping[str, Outcome]) -> None:
    for name, outcome in outcomes.items():
        served = [(octave, counts) for octave, counts in enumerate(outcome.octaves) if counts[0]]
        warm_rates = [warm / starts for _, (starts, warm) in served]
        axes.plot([_middle(octave) for octave, _ in served], warm_rates, **_style(name))
    repeated = [(_middle(octave), again / starts) for octave, (starts, again) in enumerate(trace.octaves) if starts]
    axes.plot(*zip(*repeated, strict=True), color="grey", linestyle=":", label="_limit")
    axes.set_xscale("log")
    axes.set_title("… by how much the voice is wanted")
    axes.set_xlabel("rank of the voice")


def _minutes(trace: Trace, at_s: float) -> float:
    return (at_s - trace.traffic.warm_up_s) / 60


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


def _middle(octave: int) -> float:
    """Of the ranks 2^octave to 2^(octave+1) − 1, geometrically; the first octave is rank 1 alone."""
    return (2**octave * (2 ** (octave + 1) - 1)) ** 0.5


def _style(policy: str) -> dict[str, Any]:
    """A policy looks the same whichever others are shown; the first of the table is drawn bold and on top."""
    place = list(POLICIES).index(policy)
    return {
        "label": policy,
        "color": f"C{place}",
        "linestyle": LINE_STYLES[place % len(LINE_STYLES)],
        "linewidth": 2.4 if place == 0 else 1.4,
        "zorder": 10 - place,
    }
