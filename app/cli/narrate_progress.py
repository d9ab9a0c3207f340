"""A narration's progress display: a bar for each chapter on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

Json = dict[str, Any]

TITLE_CHARS = 40
LINES_BESIDE_BARS = 4


class ProgressReporter(Protocol):
    def show(self, narration: Json) -> None:
        """Show the progress."""
        ...

    def fetched(self, have: int, size: int) -> None:
        """Show how many bytes of the finished file are here."""
        ...


@contextmanager
def progress_reporter(out: TextIO) -> Iterator[ProgressReporter]:
    """The reporter that suits `out`."""
    if not out.isatty():
        yield Lines(out)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    note = TextColumn("{task.fields[note]}", markup=False)
    with Progress(*columns, note, console=Console(file=out)) as progress:
        yield Bars(progress)


class Lines:
    """A line for every state, every chapter that is over, and every tenth of the whole."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._state = ""
        self._tenth = 0
        self._over: set[int] = set()

    def show(self, narration: Json) -> None:
        if narration["state"] != self._state:
            self._state = narration["state"]
            self._line(self._state)
        for chapter in narration["chapters"]:
            if _is_over(chapter) and chapter["number"] not in self._over:
                self._over.add(chapter["number"])
                self._show_end(chapter, len(narration["chapters"]))
        tenth = 10 * narration["segments_done"] // max(1, narration["segments"])
        if tenth > self._tenth:
            self._tenth = tenth
            outlook = _outlook(narration)
            beside = f" ({outlook})" if outlook else ""
            self._line(f"  {narration['segments_done']} of {narration['segments']} segments{beside}")

    def _show_end(self, chapter: Json, chapters: int) -> None:
        error = f": {chapter['error']['message']}" if chapter["error"] else ""
        spoken = f"{chapter['segments_done']} of {chapter['segments']} segments, {duration(chapter['audio_s'])}"
        self._line(f"  chapter {chapter['number']} of {chapters}, {chapter['title']}: {spoken}{error}")

    def fetched(self, have: int, size: int) -> None:
        if have >= size:
            self._line(f"fetched {size / 1e6:.1f} MB")

    def _line(self, text: str) -> None:
        self._out.write(text + "\n")
        self._out.flush()


class Bars:
    """A bar for the whole and one for each chapter; of more chapters than fit, for those being read."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._bars: dict[object, TaskID] = {}

    def show(self, narration: Json) -> None:
        done, total = narration["segments_done"], narration["segments"] or None
        self._set("whole", narration["state"], done, total, note=_outlook(narration))
        fit = len(narration["chapters"]) <= self._progress.console.height - LINES_BESIDE_BARS
        for chapter in narration["chapters"]:
            title = f"{chapter['number']:>3} {chapter['title']}"[:TITLE_CHARS]
            note = "failed" if chapter["error"] else f"{chapter['flagged']} flagged" if chapter["flagged"] else ""
            reading = chapter["segments_done"] > 0 and not _is_over(chapter)
            done, total = chapter["segments_done"], chapter["segments"]
            self._set(chapter["number"], title, done, total, note=note, visible=fit or reading)

    def fetched(self, have: int, size: int) -> None:
        megabytes = f"{have / 1e6:.1f} of {size / 1e6:.1f} MB"
        self._set("file", "fetching", 100 * have // size, 100, note=megabytes)

    def _set(
        self, what: object, title: str, done: int, total: int | None, *, note: str = "", visible: bool = True
    ) -> None:
        if what not in self._bars:
            self._bars[what] = self._progress.add_task(title, total=total, note=note)
        self._progress.update(
            self._bars[what], description=title, completed=done, total=total, note=note, visible=visible
        )


def _is_over(chapter: Json) -> bool:
    return chapter["finished"] or chapter["error"] is not None


def _outlook(narration: Json) -> str:
    factor, eta_s = narration["real_time_factor"], narration["eta_s"]
    parts = [f"real-time factor {factor:.2f}"] if factor is not None else []
    parts += [f"{duration(eta_s)} left"] if eta_s is not None else []
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """duration(3671.2) -> "1:01:11"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
