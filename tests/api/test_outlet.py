"""What an application sends by its socket's outlet, as a client's own library reads it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from uvicorn.config import Config
from uvicorn.server import ServerState
from websockets.asyncio.client import ClientConnection, connect

from app.api.http_protocol import OUTLET, BoundedWebSocket
from tests.support.deadlines import HANG_S

pytestmark = pytest.mark.anyio

MESSAGES = ["", "words", b"\0" * 125, b"\1" * 126, "é" * 40_000, b"\2" * 65_535, b"\3" * 65_536, b"the last"]


@asynccontextmanager
async def connected(app: Any) -> AsyncIterator[ClientConnection]:
    config = Config(app, lifespan="off", ws_per_message_deflate=False, log_config=None)
    config.load()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: BoundedWebSocket(config, ServerState(), {}, loop), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, connect(f"ws://127.0.0.1:{port}/", proxy=None) as client:
        yield client


async def test_messages_of_every_size_arrive_whole_and_in_order_with_those_sent_as_asgi_has_it() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        outlet = scope["extensions"][OUTLET]
        assert not outlet.clear, "before it has accepted"
        await send({"type": "websocket.accept"})
        for message in MESSAGES:
            if outlet.clear:
                outlet.send_now(message)
            else:
                kind = "text" if isinstance(message, str) else "bytes"
                await send({"type": "websocket.send", kind: message})
        await send({"type": "websocket.send", "text": "by ASGI"})
        await send({"type": "websocket.close"})
        assert not outlet.clear, "after its close"

    async with asyncio.timeout(HANG_S), connected(app) as client:
        assert [message async for message in client] == [*MESSAGES, "by ASGI"]
        assert client.close_code == 1000


async def test_an_outlet_is_not_clear_while_the_client_takes_nothing() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        outlet = scope["extensions"][OUTLET]
        await send({"type": "websocket.accept"})
        sent = 0
        while outlet.clear:
            outlet.send_now(b"\0" * 65_536)
            sent += 1
        await send({"type": "websocket.send", "text": str(sent)})

    async with asyncio.timeout(HANG_S), connected(app) as client:
        *audio, count = [message async for message in client]
        assert len(audio) == int(count)
