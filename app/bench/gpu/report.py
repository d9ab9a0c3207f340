"""The tables of a run, as Markdown. It knows results and the price of a card, nothing of how they were measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from app.bench.gpu.results import Result, Results

REAL_TIME_TOKENS_PER_S = 82.03
"""What a stream of Orpheus needs: seven tokens for 2048 samples at 24 kHz."""

Row = Sequence[Any]


def report(results: Results, *, price: float) -> str:
    """All tables that have a row, and what failed."""
    subject = results.subject
    versions = ", ".join(f"{name} {version}" for name, version in subject.versions.items())
    tiny = " Tiny sizes: a test of the command, no measurement." if subject.tiny else ""
    parts = [
        f"# {subject.device}, {subject.model}\n\n{versions}.{tiny} A dash stands for what was not measured.",
        *_speech(results.of("speech", "level"), price),
        *_tokens(results.of("engine", "tokens")),
        *_waits(results),
        *_decoder(results),
        *_training(results.of("training")),
    ]
    if failures := results.errors():
        parts.append("## What failed\n\n" + "\n".join(f"- {each.key}: {each.error}" for each in failures))
    return "\n\n".join(parts) + "\n"


def capacity(levels: Iterable[Result]) -> dict[str, int]:
    """The most streams that held, by precision."""
    most: dict[str, int] = {}
    for level in levels:
        precision = str(level.parameters["precision"])
        streams = int(level.parameters["streams"]) if level.figures["holds"] else 0
        most[precision] = max(most.get(precision, 0), streams)
    return most


def _speech(levels: list[Result], price: float) -> list[str]:
    if not levels:
        return []
    rows = [
        (
            _precision(each),
            each.parameters["streams"],
            each.figures["sessions"],
            f"{each.figures['p50_ms']:.0f} / {each.figures['p95_ms']:.0f}",
            f"{100 * each.figures['whole_share']:.1f}",
            "yes" if each.figures["holds"] else "no",
            f"{price / int(each.parameters['streams']):.4f}",
        )
        for each in sorted(levels, key=lambda each: (_precision(each), int(each.parameters["streams"])))
    ]
    header = ("precision", "streams", "sessions", "first audible sound, P50 / P95 ms", "whole, %", "holds", "$ an hour")
    most = "; ".join(
        f"{precision.replace('none', 'bf16')}: **{streams} streams**"
        + (f", {price / streams:.4f} dollars an hour of audio" if streams else "")
        for precision, streams in capacity(levels).items()
    )
    title = f"## End to end\n\nA card at {price:g} dollars an hour. {most}."
    return [f"{title}\n\n{_table(header, rows)}"]


def _tokens(results: list[Result]) -> list[str]:
    if not results:
        return []
    batches = sorted({int(each.parameters["batch"]) for each in results})
    kinds: dict[tuple[Any, ...], dict[int, Mapping[str, Any]]] = {}
    for each in results:
        of = each.parameters
        kind = (_precision(each), of["slots"], of["loras"], _switch(of["mask"]), _switch(of["penalties"]))
        kinds.setdefault(kind, {})[int(of["batch"])] = each.figures
    rows = [
        (*kind, *(_pair(figures.get(batch), "tokens_per_s", "total_tokens_per_s") for batch in batches))
        for kind, figures in sorted(kinds.items(), key=lambda item: tuple(map(str, item[0])))
    ]
    header = ("precision", "slots", "LoRAs", "band mask", "penalties", *(f"batch {batch}" for batch in batches))
    needed = f"Tokens a second of a stream / of all; a stream needs {REAL_TIME_TOKENS_PER_S:.0f}."
    return [f"## The engine\n\n{needed}\n\n{_table(header, rows)}"]


def _waits(results: Results) -> list[str]:
    rows: list[Row] = [
        (_precision(each), "first token", each.parameters["batch"], each.parameters["loras"], _p50_p95(each.figures))
        for each in results.of("engine", "first token")
    ]
    for each in results.of("engine", "adapter stall"):
        of = each.figures
        text = f"{of['load_ms']:.0f} to load; longest gap {of['longest_gap_ms']:.0f}, usual {of['usual_gap_ms']:.1f}"
        rows.append(
            (_precision(each), "an adapter is loaded", each.parameters["batch"], each.parameters["loras"], text)
        )
    header = ("precision", "what", "streams", "LoRAs", "ms")
    return [f"Under load:\n\n{_table(header, rows)}"] if rows else []


def _decoder(results: Results) -> list[str]:
    served, schemes = results.of("decoder", "served"), results.of("decoder", "scheme")
    sessions = sorted({int(each.parameters["sessions"]) for each in (*served, *schemes)})
    rows = [
        *_by_sessions(served, sessions, lambda each: ("served", 1, _beside(each))),
        *_by_sessions(schemes, sessions, lambda each: (each.parameters["scheme"], each.parameters["frames"], "alone")),
    ]
    if not rows:
        return []
    header = ("scheme", "frames at once", "engine", *(f"{count} sessions" for count in sessions), "error, dB")
    title = "## The decoder\n\nMilliseconds a frame of each session / P95 of one step of all; a frame lasts 85."
    return [f"{title}\n\n{_table(header, rows)}"]


def _beside(each: Result) -> str:
    streams = each.parameters.get("streams")
    return f"beside {streams} streams" if streams else "alone"


def _by_sessions(results: list[Result], sessions: Sequence[int], kind_of: Callable[[Result], Row]) -> list[Row]:
    kinds: dict[tuple[Any, ...], dict[int, Mapping[str, Any]]] = {}
    for each in results:
        kinds.setdefault(tuple(kind_of(each)), {})[int(each.parameters["sessions"])] = each.figures
    rows: list[Row] = []
    for kind, figures in kinds.items():
        errors = [each["error_db"] for each in figures.values() if "error_db" in each]
        cells = [_pair(figures.get(count), "ms_a_frame", "p95_ms", digits=2) for count in sessions]
        rows.append((*kind, *cells, max(errors) if errors else "–"))
    return rows


def _training(results: list[Result]) -> list[str]:
    rows = [
        (
            each.parameters["how"],
            each.parameters["micro_batch_tokens"] or "–",
            f"{each.figures['tokens_per_s']:.0f}",
            f"{each.figures['memory_gib']:.1f}",
            f"{each.figures['minutes_a_voice']:.1f}",
        )
        for each in results
    ]
    header = ("trainer", "padded tokens at a time", "tokens/s", "memory, GiB", "minutes for 30 minutes × 5 epochs")
    return [f"## Training a LoRA of rank 16\n\n{_table(header, rows)}"] if rows else []


def _precision(each: Result) -> str:
    return str(each.parameters["precision"]).replace("none", "bf16")


def _switch(value: Any) -> str:
    return "on" if value else "off"


def _pair(figures: Mapping[str, Any] | None, first: str, second: str, *, digits: int = 0) -> str:
    return "–" if figures is None else f"{figures[first]:.{digits}f} / {figures[second]:.{digits}f}"


def _p50_p95(figures: Mapping[str, Any]) -> str:
    return f"P50 {figures['p50_ms']:.1f}, P95 {figures['p95_ms']:.1f}"


def _table(header: Row, rows: Iterable[Row]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)
