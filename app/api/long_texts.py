"""JSON bodies with one text that may be megabytes long: a short one is parsed here, a long one in a process of its own.

The text ends up in a file either way; what it says is not known here.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TypeVar

from fastapi import Request
from pydantic import BaseModel

from app.api.bodies import SMALL_BYTES, parse_json, pieces_in_time
from app.errors import InvalidRequest
from app.platform import sandbox

MAX_LIFTED_BYTES = 4 * 2**20
"""Of what is left of a body without its text."""

_SCRIPT = Path(__file__).with_name("long_text_child.py")
_WORDING = sandbox.Wording(
    verb="read",
    script="the parser",
    remedy="send the text as a file",
    crash_remedy="send the text as a file",
    work="reading a body",
)
_CPU_S_PER_MB = 5

Value = TypeVar("Value", bound=BaseModel)


async def store_body(request: Request, path: Path, *, max_bytes: int) -> None:
    """Write a request's body to `path` as it comes. Raises 413, 408, ClientDisconnect."""
    with path.open("wb") as file:
        async for piece in pieces_in_time(request, max_bytes):
            await asyncio.to_thread(file.write, piece)


async def parse_with_text(
    body: Path, kind: type[Value], *, field: str, target: Path, max_values: int
) -> tuple[Value, int | None]:
    """The JSON in the file `body` as a `kind` without its text `field`, and how many bytes that has in `target`.

    None: there is no text. Raises InvalidRequest naming the field that is wrong.
    """
    size = body.stat().st_size
    if size <= SMALL_BYTES:
        wanted = parse_json(body.read_bytes(), kind, max_values=max_values)
        text: str | None = getattr(wanted, field)
        if text is None:
            return wanted, None
        target.write_bytes(text.encode())
        return wanted.model_copy(update={field: None}), target.stat().st_size
    limits = sandbox.Limits(
        memory_bytes=2**29 + 16 * size,
        cpu_s=10 + _CPU_S_PER_MB * size // 2**20,
        wall_s=60.0,
        file_bytes=size,
        answer_bytes=MAX_LIFTED_BYTES,
    )
    request = {"source": str(body.absolute()), "field": field, "target": str(target.absolute())}
    try:
        said = await sandbox.run(_SCRIPT, request, limits=limits, wording=_WORDING)
    except sandbox.Fault as fault:
        place, _, reason = str(fault).partition(":")
        raise InvalidRequest(str(fault), param=place if reason else "body") from None
    wanted = await asyncio.to_thread(parse_json, json.dumps(said["rest"]).encode(), kind, max_values=max_values)
    return wanted, target.stat().st_size if said["found"] else None
