"""A short WAV is held back for a moment: if it is whole by then, its header tells its true length.

Readers of files trust that length (`0xFFFFFFFF` is what a stream has). Nothing here knows what speaks.
"""

from __future__ import annotations

import asyncio
import math
import struct
from collections.abc import AsyncGenerator, AsyncIterator
from typing import TypeVar

MAX_CHARS = 80
"""Of a short text: five seconds of speech."""

Event = TypeVar("Event")


async def told_when_due(events: AsyncIterator[Event], hold_s: float) -> AsyncGenerator[Event | None, None]:
    """The events, and None once: where one keeps the reader waiting for longer than `hold_s` after the first."""
    clock = asyncio.get_running_loop().time
    due_at: float | None = None
    while hold_s < math.inf:
        upcoming = asyncio.ensure_future(_next(events))
        try:
            if due_at is not None and not (await asyncio.wait([upcoming], timeout=max(0.0, due_at - clock())))[0]:
                hold_s = math.inf
                yield None
            event = await upcoming
        finally:
            upcoming.cancel()
        if event is None:
            return
        due_at = due_at or clock() + hold_s
        yield event
    async for event in events:
        yield event


async def _next(events: AsyncIterator[Event]) -> Event | None:
    return await anext(events, None)


def with_length(wav: bytes) -> bytes:
    """A whole WAV stream, as `app.platform.codecs` writes it, with its length in its header."""
    size = len(wav)
    return b"".join((wav[:4], struct.pack("<I", size - 8), wav[8:40], struct.pack("<I", size - 44), wav[44:]))
