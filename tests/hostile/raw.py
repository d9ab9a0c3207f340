"""A stranger's end of a plain connection: bytes go in as they are, and what comes back is read to its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

from tests.support.deadlines import HANG_S

HALF_A_HEAD = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: "


class Raw:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        """As far as it is taken."""
        with suppress(ConnectionError):
            if self._reader.at_eof() or self._writer.is_closing():
                return
            self._writer.write(data)
            await self._writer.drain()

    async def answer_to(self, *pieces: bytes) -> bytes:
        """What comes back while they are sent, one after the other: who answers early hangs up on the rest."""

        async def send_all() -> None:
            for piece in pieces:
                await self.send(piece)

        async with asyncio.TaskGroup() as group:
            group.create_task(send_all())
            return await self.answer()

    async def answer(self) -> bytes:
        """Everything until the other side closes; a reset ends it too."""
        heard = bytearray()
        with suppress(ConnectionError):
            async with asyncio.timeout(HANG_S):
                while piece := await self._reader.read(2**16):
                    heard += piece
        return bytes(heard)

    async def status(self) -> int:
        """Of the next answer."""
        async with asyncio.timeout(HANG_S):
            return int((await self._reader.readline()).split()[1])


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Raw]:
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        yield Raw(reader, writer)
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
