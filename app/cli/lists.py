"""`carillon voices`, `carillon jobs`, `carillon narrations`, `carillon usage`: what there is on a running fleet."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any

import typer

from app.cli.options import AsJson, Key, Url
from app.cli.target import open_client

Json = dict[str, Any]
Limit = Annotated[int, typer.Option(min=1, max=1000, help="The newest so many.")]


def voices(as_json: AsJson = False, url: Url = None, key: Key = None) -> None:
    """List the voices that can be spoken with: built-in ones and clones."""
    with open_client(url, key) as client:
        found = client.voices.speakable()

    def row(voice: Json) -> Sequence[str]:
        return voice["name"], voice["kind"].replace("_", "-"), voice["language"], voice["model"], voice["id"]

    _show(found, as_json, row, nothing="no voice can be spoken with yet: no worker is ready")


def jobs(limit: Limit = 20, as_json: AsJson = False, url: Url = None, key: Key = None) -> None:
    """List the jobs that make voices, the newest first."""
    with open_client(url, key) as client:
        found = client.clones.all(limit=limit)

    def row(job: Json) -> Sequence[str]:
        progress, error = job["progress"], job["error"]
        at = f"step {progress['step']} of {progress['steps']}" if progress and not job["over"] else ""
        return job["id"], job["kind"], job["voice_id"], job["state"], _when(job), error["message"] if error else at

    _show(found, as_json, row, nothing="there are no jobs; `carillon clone` starts one")


def narrations(limit: Limit = 20, as_json: AsJson = False, url: Url = None, key: Key = None) -> None:
    """List the narrations, the newest first."""
    with open_client(url, key) as client:
        found = client.narrations.all(limit=limit)

    def row(one: Json) -> Sequence[str]:
        far = f"{one['segments_done']} of {one['segments']} segments" if one["segments"] else ""
        error = one["error"]
        return one["id"], one["state"], _when(one), one["title"], error["message"] if error else far

    _show(found, as_json, row, nothing="there are no narrations; `carillon narrate` starts one")


def usage(
    *,
    by: Annotated[str, typer.Option(help="Of day, project, key, voice; with commas between.")] = "day",
    first: Annotated[
        str | None, typer.Option("--from", metavar="DATE", help="Default: this month's first day.")
    ] = None,
    last: Annotated[str | None, typer.Option("--to", metavar="DATE", help="Default: today, UTC.")] = None,
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Show who used how much, and what it costs."""
    query = {name: value for name, value in (("by", by), ("from", first), ("to", last)) if value is not None}
    with open_client(url, key) as client:
        found = client.usage(**query)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    dimensions = [name.strip() for name in by.split(",")]
    named = [name for name in ("day", "project", "key", "voice") if name in dimensions]

    def row(used: Json) -> Sequence[str]:
        whose = [used.get(name) or "-" for name in named] or ["total"]
        counts = [f"{used[name]} {name}" for name in ("utterances", "characters", "jobs")]
        times = f"{used['audio_s']:.0f} s of audio", f"{used['gpu_s']:.0f} s of GPU"
        return *whose, *counts, *times, f"{used['cost_usd']:.4f} USD"

    _show(found["data"], False, row, nothing="nothing was used in that time")


def _show(found: list[Json], as_json: bool, row: Callable[[Json], Sequence[str]], *, nothing: str) -> None:
    """Print what was found: as JSON, or in columns; that there is nothing is no output of its own."""
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    elif found:
        for line in columns(map(row, found)):
            typer.echo(line)
    else:
        print(f"carillon: {nothing}", file=sys.stderr)


def columns(rows: Iterable[Sequence[str]]) -> list[str]:
    """Rows of one length as lines, each column as wide as its widest cell; nothing in them moves a terminal."""
    clean = [["".join(char if char.isprintable() else " " for char in cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*clean, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in clean]


def _when(thing: Json) -> str:
    """To the minute, in UTC as it is kept."""
    return thing["created_at"][:16].replace("T", " ")
