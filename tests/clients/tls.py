"""TLS in front of a fleet, as an operator puts it there: ElevenLabs' and Cartesia's SDKs open no other sockets."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

import trustme


@contextmanager
def in_front_of(url: str, authority: trustme.CA) -> Iterator[str]:
    """The address of a relay that takes TLS off; it works in a thread of its own."""
    ready: list[int] = []
    listening = threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("localhost").configure_cert(context)
        target = urlsplit(url)

        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            to_reader, to_writer = await asyncio.open_connection(target.hostname, target.port)
            with suppress(OSError):
                await asyncio.gather(_pump(reader, to_writer), _pump(to_reader, writer))

        async with await asyncio.start_server(relay, "127.0.0.1", 0, ssl=context) as server:
            ready.append(server.sockets[0].getsockname()[1])
            listening.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), daemon=True)
    thread.start()
    listening.wait()
    try:
        yield f"https://localhost:{ready[0]}"
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(timeout=10)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()
