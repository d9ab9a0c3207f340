"""An object of the store as an answer, piece by piece."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.api.disconnect import while_connected
from app.errors import CarillonError

log = logging.getLogger(__name__)


class StoredResponse(Response):
    """Passes pieces of an object on as fast as the client takes them, one in memory at a time."""

    def __init__(self, first: bytes, rest: Iterator[bytes], *, status: int, headers: dict[str, str]) -> None:
        super().__init__(status_code=status, headers=headers)
        self._first = first
        self._rest = rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await while_connected(self._send(send), receive)

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            async for piece in self._pieces():
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        except CarillonError as error:
            # Without a last piece the server breaks the connection, and the client asks for the rest.
            log.warning("download broken off", extra={"code": error.code})
            return
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _pieces(self) -> AsyncIterator[bytes]:
        piece = self._first
        while piece:
            yield piece
            piece = await asyncio.to_thread(next, self._rest, b"")
