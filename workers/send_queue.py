"""The send queue of a session. Its bound is the backpressure: a slow listener slows only itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from app.errors import SlowReader
from app.speech.protocol import AudioFrame, Begun, Cancelled, Done, Flushed, Segment, Uttered

Outgoing = AudioFrame | Begun | Segment | Uttered | Flushed | Cancelled | Done


class SendQueue:
    """At most `size` items, and each may wait for its place for `timeout_s`.

    `outlet`, once it is set, is offered what finds the queue empty, and says whether it has sent it: an item then costs
    no turn of the event loop of its own.
    """

    def __init__(self, size: int, *, timeout_s: float) -> None:
        self._items: asyncio.Queue[Outgoing] = asyncio.Queue(size)
        self._timeout_s = timeout_s
        self.outlet: Callable[[Outgoing], bool] | None = None

    def empty(self) -> bool:
        return self._items.empty()

    async def get(self) -> Outgoing:
        return await self._items.get()

    async def put(self, item: Outgoing) -> None:
        """Raises SlowReader when nothing is taken for too long."""
        if self.outlet is not None and self._items.empty() and self.outlet(item):
            return
        if not self._items.full():
            self._items.put_nowait(item)
            return
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._items.put(item)
        except TimeoutError:
            raise SlowReader(f"no audio was taken for {self._timeout_s:g} s; read faster, or ask for less") from None

    def drop_stale(self, generation: int) -> AudioFrame | None:
        """Drop what other generations have left, but for `cancelled` and `done`. Returns the first frame dropped."""
        waiting = [self._items.get_nowait() for _ in range(self._items.qsize())]
        for item in waiting:
            if isinstance(item, Cancelled | Done) or getattr(item, "generation", None) == generation:
                self._items.put_nowait(item)
        return next((it for it in waiting if isinstance(it, AudioFrame) and it.generation != generation), None)
