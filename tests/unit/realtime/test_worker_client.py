"""Dialling a worker that goes away at the worst moments: each is a lost worker, for which a session tries the next."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import monotonic

import pytest
from websockets.asyncio.server import ServerConnection, serve

from app.errors import WorkerLost
from app.fleet.worker import Worker, WorkerState
from app.platform.settings import Settings
from app.realtime.worker_client import dial
from app.speech.protocol import Assign
from tests.support.registries import BUILT_IN, CARD

pytestmark = pytest.mark.anyio

ASSIGN = Assign(session="s", epoch=1, voice=BUILT_IN, pace="realtime")


async def assigned_to(port: int, directory: Path) -> None:
    address = f"ws://127.0.0.1:{port}"
    worker = Worker(id="w1", epoch=1, address=address, model=CARD, state=WorkerState.ACTIVE, capacity=1, max_voices=1)
    connection = await dial(worker, ASSIGN, Settings(data_dir=directory), monotonic)
    await connection.close()


def hanging_up(after: bytes) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if after:
            await reader.readuntil(after)
        writer.close()

    return hang_up


@pytest.mark.parametrize("after", [b"", b"\r\n\r\n"], ids=["at once", "when it was greeted"])
async def test_a_worker_gone_within_the_handshake_is_lost(tmp_path: Path, after: bytes) -> None:
    async with await asyncio.start_server(hanging_up(after), "127.0.0.1", 0) as server:
        with pytest.raises(WorkerLost, match="worker w1 cannot be reached"):
            await assigned_to(server.sockets[0].getsockname()[1], tmp_path)


async def test_a_worker_gone_before_the_assignment_is_lost(tmp_path: Path) -> None:
    async def vanish(socket: ServerConnection) -> None:
        socket.transport.abort()

    async with serve(vanish, "127.0.0.1", 0) as server:
        with pytest.raises(WorkerLost, match="the connection to worker w1 broke"):
            await assigned_to(next(iter(server.sockets)).getsockname()[1], tmp_path)


async def test_an_assignment_says_only_what_was_chosen_for_the_worker_may_be_older(tmp_path: Path) -> None:
    heard: list[dict[str, object]] = []

    async def listen(socket: ServerConnection) -> None:
        heard.append(json.loads(await socket.recv()))

    async with serve(listen, "127.0.0.1", 0) as server:
        with pytest.raises(WorkerLost):
            await assigned_to(next(iter(server.sockets)).getsockname()[1], tmp_path)
    voice = {"id": BUILT_IN.id, "name": BUILT_IN.name, "model": BUILT_IN.model}
    assert heard == [{"type": "assign", "session": "s", "epoch": 1, "voice": voice}]
