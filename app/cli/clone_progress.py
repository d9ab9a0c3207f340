"""A clone job's progress as people see it: a line for everything new, and its gate's figures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TextIO

from app.errors import CarillonError

if TYPE_CHECKING:
    from app.client.http import ApiClient

Json = dict[str, Any]


def follow(client: ApiClient, job: Json, *, out: TextIO) -> Json:
    """Report a job's progress line by line until it is over. Raises its error if it failed."""
    lines, seen = JobLines(out), job
    for seen in client.clones.follow(job["id"]):
        lines.show(seen)
    if seen["error"]:
        raise CarillonError.from_wire(seen["error"]["code"], seen["error"]["message"])
    return seen


class JobLines:
    """What is new about a job, each thing once."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._state = ""
        self._epochs = 0
        self._report: Json | None = None
        self._shown: set[str] = set()

    def show(self, job: Json) -> None:
        if job["state"] != self._state:
            self._state = job["state"]
            self._line(self._state + (f" (attempt {job['attempt']})" if job["attempt"] > 1 else ""))
        if (report := job.get("report")) and report != self._report:
            self._report = report
            for line in report["summary"]:
                self._line(f"  {line}")
        if progress := job["progress"]:
            self._show_progress(progress)
        if (gate := job["gate"]) and self._first("gate"):
            for line in gate_table(gate):
                self._line(f"  {line}")
        if job["version"] and self._first("version"):
            self._line(f"version {job['version']} is in force")

    def _show_progress(self, progress: Json) -> None:
        done = progress["held_out_losses"]
        if len(done) > self._epochs:
            self._epochs = len(done)
            name = "untrained" if len(done) == 1 else f"epoch {len(done) - 1}"
            self._line(f"  {name}: held-out loss {done[-1]:.3f}")
        if self._out.isatty():
            left = f", {progress['eta_s']:.0f} s left" if progress["eta_s"] is not None else ""
            self._out.write(f"\r  step {progress['step']} of {progress['steps']}{left}   \r")
            self._out.flush()

    def _first(self, what: str) -> bool:
        first = what not in self._shown
        self._shown.add(what)
        return first

    def _line(self, text: str) -> None:
        self._out.write(text + "\n")
        self._out.flush()


def gate_table(gate: Json) -> Iterator[str]:
    """The gate's figures, one a line, with the base voice's beside them where they were measured."""
    for figure in gate["figures"]:
        measured = "not measured" if figure["measured"] is None else f"{figure['measured']:.4g}"
        base = gate["base"].get(figure["name"])
        beside = "" if base is None else f", base {base:.4g}"
        mark = {True: "ok", False: "FAILED", None: "  "}[figure["passed"]]
        yield f"{mark:6}  {figure['name']}: {measured}{beside} ({figure['limit']})"
