"""JSON that clients send, read piece by piece and never in memory beyond a bound; forms are `app.api.forms`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException

from app.api.errors import invalid
from app.errors import InvalidRequest
from app.speech.field_errors import check_storable

SMALL_BYTES = 64 * 1024
"""Of a JSON body: more than any request needs that has no text to speak in it; parsed in 2 ms at most."""

MAX_STRUCTURE_BYTES = 256 * 1024
"""Of a larger JSON body, without its strings: a thousand announced files take a tenth of it."""

MAX_VALUES = 1_000
"""Of a JSON body: where each is a field that there is not, so many errors are made in 4 ms (measured)."""

STALL_S = 20.0
BYTES_PER_S = 16_384
"""The least rate of a body: a slower one holds a connection for nothing."""

Value = TypeVar("Value", bound=BaseModel)


def media_type(request: Request) -> str:
    """What a body says it is, without parameters: `application/json`."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_json(
    request: Request,
    kind: type[Value],
    *,
    max_bytes: int = SMALL_BYTES,
    max_values: int = MAX_VALUES,
    strict: bool = True,
) -> Value:
    """The body as a `kind`; none at all is `{}`. Raises InvalidRequest naming the field that is wrong, and 413.

    It has as many as `max_values` members of objects and lists, and has to arrive within STALL_S and at BYTES_PER_S.
    Unless `strict`, a number may stand in quotes, and 0 for false. No route has a body parameter of the framework's:
    that would be read, whatever its size, before the key is.
    """
    body = await _received(request, max_bytes)
    if len(body) <= SMALL_BYTES:
        return parse_json(body, kind, max_values=max_values, strict=strict)
    return await asyncio.to_thread(parse_json, body, kind, max_values=max_values, strict=strict)


async def _received(request: Request, max_bytes: int) -> bytes:
    body = bytearray()
    async for piece in pieces_in_time(request, max_bytes):
        body += piece
    return bytes(body)


async def pieces_in_time(request: Request, max_bytes: int) -> AsyncIterator[bytes]:
    """A body of at most `max_bytes`, as it comes. Raises 413 for more, 408 for one that takes too long."""
    stream, size = request.stream(), 0
    over_at = asyncio.get_running_loop().time() + STALL_S + max_bytes / BYTES_PER_S
    while True:
        try:
            async with asyncio.timeout_at(over_at):
                piece = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise HTTPException(408, f"the body did not arrive in time: {size} bytes of it did") from None
        size += len(piece)
        if size > max_bytes:
            raise HTTPException(413, f"the body has more than {max_bytes} bytes, the most this request can need")
        yield piece


def parse_json(body: bytes, kind: type[Value], *, max_values: int = MAX_VALUES, strict: bool = True) -> Value:
    """JSON as a `kind`. Blocks, by milliseconds per megabyte. Raises InvalidRequest.

    A parser holds the interpreter while it works, in whichever thread: 0.02 s for a megabyte of one text, but 0.2 s for
    a megabyte of `[{},{},…]` (measured). So texts may be long, and what is not within quotes may not.
    """
    if len(body) > SMALL_BYTES and not _is_mostly_text(body):
        raise InvalidRequest(f"the body has more than {MAX_STRUCTURE_BYTES} bytes besides its texts; send less at once")
    if (values := _values(body, max_values)) > max_values:
        raise InvalidRequest(f"the body has {values} fields or more; at most {max_values} are accepted", param="body")
    try:
        check_storable(body)
    except ValueError as error:
        raise InvalidRequest(str(error), param=str(error).partition(":")[0]) from None
    try:
        return kind.model_validate_json(body or b"{}", strict=strict)
    except ValidationError as error:
        raise invalid(error) from None


def _values(body: bytes, most: int) -> int:
    """The members of a JSON body's objects and lists; more than `most` where there cannot be fewer."""
    if body.count(b",") < most:  # those within its texts counted too
        return 1
    unescaped = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    return sum(outside.count(b",") for outside in unescaped.split(b'"')[::2]) + 1


def _is_mostly_text(body: bytes) -> bool:
    """Whether at most MAX_STRUCTURE_BYTES of JSON lie outside of its strings, the quotes themselves counted."""
    unescaped = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    quotes = unescaped.count(b'"')
    if quotes > MAX_STRUCTURE_BYTES:
        return False
    return quotes + sum(map(len, unescaped.split(b'"')[::2])) <= MAX_STRUCTURE_BYTES


def json_body(kind: type[BaseModel]) -> dict[str, Any]:
    """What `read_json` takes, for the OpenAPI page."""
    schema = kind.model_json_schema()
    parts = schema.pop("$defs", {})
    content = {"application/json": {"schema": _inlined(schema, parts)}}
    return {"requestBody": {"required": bool(schema.get("required")), "content": content}}


def either_body(*bodies: dict[str, Any]) -> dict[str, Any]:
    """One of several kinds of body, for the OpenAPI page."""
    content = {kind: schema for body in bodies for kind, schema in body["requestBody"]["content"].items()}
    return {"requestBody": {"required": True, "content": content}}


def _inlined(schema: Any, parts: dict[str, Any]) -> Any:
    """The schema with its parts put in: their addresses would not be found from within a larger page."""
    if isinstance(schema, list):
        return [_inlined(item, parts) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inlined(parts[schema["$ref"].rpartition("/")[2]], parts)
    return {name: _inlined(value, parts) for name, value in schema.items()}
