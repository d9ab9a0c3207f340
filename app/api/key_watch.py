"""Closes open connections whose API key was revoked or has expired.

One query for all of them, every two seconds. How a connection ends is its own matter.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

from app.errors import StoreUnavailable
from app.platform.api_key_store import ApiKeyStore

CHECK_S = 2.0

log = logging.getLogger(__name__)


class KeyWatch:
    """The connections of one front door."""

    def __init__(self, keys: ApiKeyStore) -> None:
        self._keys = keys
        self._held: dict[str, list[Callable[[], None]]] = defaultdict(list)

    @contextmanager
    def held(self, key_id: str, end: Callable[[], None]) -> Iterator[None]:
        """A connection of a key, for as long as the context is open; `end` is called when the key ends."""
        if not key_id:
            yield
            return
        self._held[key_id].append(end)
        try:
            yield
        finally:
            self._held[key_id].remove(end)
            if not self._held[key_id]:
                del self._held[key_id]

    async def check(self) -> None:
        """End the connections of keys that hold no longer. An absent catalogue ends none."""
        if not self._held:
            return
        with suppress(StoreUnavailable):
            for key_id in await self._keys.ended(list(self._held)):
                connections = list(self._held.get(key_id, ()))
                log.info("connections of an ended key closed", extra={"key": key_id, "connections": len(connections)})
                for end in connections:
                    end()


@asynccontextmanager
async def open_key_watch(keys: ApiKeyStore) -> AsyncIterator[KeyWatch]:
    """A watch that looks every CHECK_S, for as long as the context is open."""
    watch = KeyWatch(keys)

    async def look() -> None:
        while True:
            await asyncio.sleep(CHECK_S)
            await watch.check()

    looking = asyncio.create_task(look(), name="key watch")
    try:
        yield watch
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
