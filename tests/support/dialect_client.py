"""A client of another dialect's socket: JSON there, JSON or bytes back, as plainly as it can be."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.support.deadlines import HANG_S

Received = dict[str, Any] | bytes


class DialectClient:
    """Sends what it is told to, and keeps all that comes."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self.received: list[Received] = []

    async def send(self, message: dict[str, Any] | str) -> None:
        await self._socket.send(message if isinstance(message, str) else json.dumps(message))

    async def until(self, fits: Callable[[Any], bool]) -> Any:
        """The next message that fits."""
        async with asyncio.timeout(HANG_S):
            while not fits(message := await self._next()):
                pass
        return message

    async def until_closed(self) -> int | None:
        """Read to the end; returns the code that the socket was closed with."""
        async with asyncio.timeout(HANG_S):
            try:
                while True:
                    await self._next()
            except ConnectionClosed:
                return self._socket.close_code

    async def _next(self) -> Received:
        raw = await self._socket.recv()
        message: Received = json.loads(raw) if isinstance(raw, str) else raw
        self.received.append(message)
        return message

    def all(self, **fields: Any) -> list[dict[str, Any]]:
        """What came so far with these values."""
        found = [message for message in self.received if isinstance(message, dict)]
        return [it for it in found if all(it.get(name) == value for name, value in fields.items())]

    def audio(self, field: str, **fields: Any) -> bytes:
        """The audio in `field` of what came with these values."""
        return b"".join(base64.b64decode(it[field]) for it in self.all(**fields) if it.get(field))


@asynccontextmanager
async def dialect_client(url: str, **headers: str) -> AsyncIterator[DialectClient]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with connect(url, additional_headers=named, max_size=None, proxy=None) as socket:
        yield DialectClient(socket)
