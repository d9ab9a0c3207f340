"""`carillon voices`, `carillon jobs`, `carillon narrations`: what there is on a running fleet."""

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
