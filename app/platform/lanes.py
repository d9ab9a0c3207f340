"""A fair semaphore for CPU-bound work: slots are granted round-robin between callers.

Each caller's next piece of work comes after one of every other waiting caller's, however many it has submitted. No
caller holds every slot, where there are several. The caller is the context variable `CALLER`.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar

CALLER: ContextVar[str] = ContextVar("caller", default="")
"""For whom this task works: the id of a key, or nothing where none is asked for."""


class FairLanes:
    """`places` pieces of work at once, of one kind."""

    def __init__(self, places: int) -> None:
        self._free = places
        self._most = max(1, places - 1)
        """Places of one caller."""
        self._held: Counter[str] = Counter()
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        self._served: dict[str, int] = {}
        """When each active caller was last served, as a growing number."""
        self._count = 0

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """A place for the body, once it is the caller's turn."""
        caller = CALLER.get()
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(caller, deque()).append(turn)
        self._hand_out()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._give_back(caller)
            else:
                turn.cancel()
                self._hand_out()
            raise
        try:
            yield
        finally:
            self._give_back(caller)

    def _give_back(self, caller: str) -> None:
        self._free += 1
        self._held[caller] -= 1
        self._hand_out()
        if not self._held[caller]:
            del self._held[caller]
            if caller not in self._waiting:
                self._served.pop(caller, None)

    def _hand_out(self) -> None:
        while self._free and (caller := self._next()) is not None:
            turns = self._waiting[caller]
            turn = turns.popleft()
            if not turns:
                del self._waiting[caller]
            if turn.cancelled():
                continue
            turn.set_result(None)
            self._count += 1
            self._served[caller] = self._count
            self._free -= 1
            self._held[caller] += 1

    def _next(self) -> str | None:
        """The waiting caller served longest ago, of those below their limit."""
        waiting = [caller for caller in self._waiting if self._held[caller] < self._most]
        return min(waiting, key=lambda caller: self._served.get(caller, 0), default=None)
