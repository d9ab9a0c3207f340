"""The plots of a run, one SVG a table. The figures are matplotlib's; it comes with the extra `plots`."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from app.bench.gpu.levels import LIMIT_MS
from app.bench.gpu.report import REAL_TIME_TOKENS_PER_S
from app.bench.gpu.results import Result, Results
from app.simulation.plot import METADATA, STYLE, matplotlib

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plots(results: Results) -> dict[str, str]:
    """SVGs by name, of the tables that have figures. Raises ConfigurationError without matplotlib."""
    drawn = {
        "engine": (results.of("engine", "tokens"), _engine),
        "decoder": (results.of("decoder"), _decoder),
        "speech": (results.of("speech", "level"), _speech),
        "training": ([each for each in results.of("training") if each.parameters["how"] == "ours"], _training),
    }
    with matplotlib().rc_context(STYLE):
        return {name: _drawn(some, draw, str(results.subject.device)) for name, (some, draw) in drawn.items() if some}


def _drawn(results: list[Result], draw: Callable[[Axes, list[Result]], None], title: str) -> str:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title)
    draw(axes, results)
    drawing = io.StringIO()
    figure.savefig(drawing, format="svg", metadata=METADATA | {"Creator": "carillon bench gpu"})
    return drawing.getvalue()


def _engine(axes: Axes, results: list[Result]) -> None:
    def kind(each: Result) -> str:
        off = [f"no {name}" for name in ("mask", "penalties") if not each.parameters[name]]
        precision = str(each.parameters["precision"]).replace("none", "bf16")
        return ", ".join([precision, f"{each.parameters['loras']} LoRAs", *off])

    _curves(axes, results, kind, x="batch", y="tokens_per_s")
    axes.axhline(REAL_TIME_TOKENS_PER_S, color="black", linestyle=":")
    axes.set_xlabel("streams")
    axes.set_ylabel("tokens/s of a stream; dotted: real time")


def _decoder(axes: Axes, results: list[Result]) -> None:
    def kind(each: Result) -> str:
        if each.name == "served":
            return "served" + (", beside the engine" if "streams" in each.parameters else "")
        return f"{each.parameters['scheme']}, {each.parameters['frames']} frames"

    _curves(axes, results, kind, x="sessions", y="ms_a_frame")
    axes.set_yscale("log")
    axes.set_xlabel("sessions")
    axes.set_ylabel("ms a frame")


def _speech(axes: Axes, results: list[Result]) -> None:
    _curves(
        axes, results, lambda each: str(each.parameters["precision"]).replace("none", "bf16"), x="streams", y="p95_ms"
    )
    axes.axhline(LIMIT_MS, color="black", linestyle=":")
    axes.set_xlabel("streams")
    axes.set_ylabel("first audible sound, P95 ms; dotted: the limit")


def _training(axes: Axes, results: list[Result]) -> None:
    _curves(axes, results, lambda each: "ours", x="micro_batch_tokens", y="tokens_per_s")
    axes.set_xlabel("padded tokens at a time")
    axes.set_ylabel("tokens/s")


def _curves(axes: Axes, results: Iterable[Result], kind: Callable[[Result], str], *, x: str, y: str) -> None:
    curves: dict[str, list[tuple[Any, Any]]] = {}
    for each in results:
        curves.setdefault(kind(each), []).append((each.parameters[x], each.figures[y]))
    for name, points in curves.items():
        axes.plot(*zip(*sorted(points), strict=True), marker=".", label=name)
    axes.legend(fontsize=7)
