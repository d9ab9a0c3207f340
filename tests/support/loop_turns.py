"""How much one turn of an event loop does, in calls of functions: no clock, so no machine is too slow for it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import FrameType

MOST_CALLS = 60_000
"""That one turn may make. A slice of the smallest chunks or frames makes 16,000; a socket's whole buffer, 200,000."""


@dataclass
class Turns:
    """`most_calls` is what the largest turn made, of Python's functions and of those in C."""

    most_calls: int = 0


@asynccontextmanager
async def counted_turns() -> AsyncIterator[Turns]:
    """Counts what the running loop does, for the body."""
    turns, calls = Turns(), 0
    turn = asyncio.BaseEventLoop._run_once.__code__  # type: ignore[attr-defined]

    def count(frame: FrameType, event: str, _: object) -> None:
        nonlocal calls
        if event == "call" and frame.f_code is turn:
            calls = 0
        elif event in {"call", "c_call"}:
            calls += 1
            turns.most_calls = max(turns.most_calls, calls)

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        yield turns
    finally:
        sys.setprofile(before)
