"""The end of a WebSocket whose client is slow: what is on its way and the close frame still reach it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from uvicorn.config import Config
from uvicorn.server import ServerState
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.uri import parse_uri

from app.api import http_protocol
from app.api.http_protocol import BoundedWebSocket

pytestmark = pytest.mark.anyio


class Wire(asyncio.Transport):
    """Keeps what is written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.aborted = False

    def write(self, data: Any) -> None:
        self.written += data

    def abort(self) -> None:
        self.aborted = True

    def close(self) -> None: ...
    def is_closing(self) -> bool:
        return self.aborted

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...


class Scene:
    """A socket whose application hands over its `send`, and what its client received."""

    def __init__(self) -> None:
        self.wire = Wire()
        self.client = ClientProtocol(parse_uri("ws://front-door/"))
        self.over = asyncio.Event()
        self.opened: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.socket = BoundedWebSocket(
            Config(self._app, interface="asgi3", lifespan="off", log_config=None), ServerState(), {}
        )

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        self.opened.set_result(send)
        await self.over.wait()

    async def open(self) -> Any:
        self.client.send_request(self.client.connect())
        self.socket.connection_made(self.wire)
        self.socket.data_received(b"".join(self.client.data_to_send()))
        return await self.opened

    async def end(self) -> None:
        self.over.set()
        await asyncio.gather(*self.socket.tasks)

    def received(self) -> list[Frame]:
        self.client.receive_data(bytes(self.wire.written))
        return [event for event in self.client.events_received() if isinstance(event, Frame)]


async def test_a_normal_end_waits_for_a_client_that_reads_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "PARTING_S", 0.0)
    scene = Scene()
    send = await scene.open()
    scene.socket.pause_writing()
    closing = asyncio.create_task(send({"type": "websocket.close", "code": 1000, "reason": ""}))
    await asyncio.wait([closing], timeout=0.05)
    assert not scene.wire.aborted
    scene.socket.resume_writing()
    await closing
    assert [frame.opcode for frame in scene.received()] == [Opcode.CLOSE]
    await scene.end()


async def test_who_reads_nothing_at_an_end_for_a_fault_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "PARTING_S", 0.0)
    scene = Scene()
    send = await scene.open()
    scene.socket.pause_writing()
    await send({"type": "websocket.close", "code": 1008, "reason": "the client read nothing for 30 s"})
    assert scene.wire.aborted
    await scene.end()
