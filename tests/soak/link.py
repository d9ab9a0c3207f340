"""A TCP connection that can be cut and slowed: what lies between two of the fleet's processes.

It needs neither root nor a network of its own. Cut, it carries nothing either way and closes nothing, as a network
whose cable is pulled; mended, it goes on with what was under way.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

CHUNK_BYTES = 65_536


class Link:
    """Listens on a port of its own, and forwards to `port`."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.port = 0
        self.delay_s = 0.0
        """Of every piece, each way."""
        self._to = host, port
        self._whole = asyncio.Event()
        self._whole.set()
        self._pumps: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        self._whole.clear()

    def lead_to(self, port: int) -> None:
        """From now on to another port; what is connected is broken off."""
        self._to = self._to[0], port
        for pump in tuple(self._pumps):
            pump.cancel()

    def mend(self) -> None:
        self._whole.set()
        self.delay_s = 0.0

    async def stop(self) -> None:
        if self._server:
            self._server.close()
        for pump in tuple(self._pumps):
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pump = asyncio.create_task(self._join(reader, writer))
        self._pumps.add(pump)
        pump.add_done_callback(self._pumps.discard)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._whole.wait()
            there, to_there = await asyncio.open_connection(*self._to)
        except OSError:
            writer.transport.abort()
            return
        ways = [asyncio.create_task(self._pump(reader, to_there)), asyncio.create_task(self._pump(there, writer))]
        try:
            await asyncio.gather(*ways)
        finally:
            for way in ways:
                way.cancel()
            writer.transport.abort()
            to_there.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One way. Its end is passed on, so that a half-closed connection stays one."""
        with suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                await self._whole.wait()
                writer.write(data)
                await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()
            return
        writer.transport.abort()
