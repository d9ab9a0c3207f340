"""The client that outlives its front door, at front doors that refuse it."""

from __future__ import annotations

import json

import pytest
from websockets.asyncio.server import ServerConnection, serve

from app.client.resuming import open_resuming_session
from app.errors import Overloaded
from app.speech.latency import Ledger
from app.speech.protocol import Done, Error, Limits, Message, Ready, Resumed

pytestmark = pytest.mark.anyio

READY = Ready(
    session="1",
    model="standin",
    stand_in=True,
    voice="slt",
    worker="w1",
    sample_rate_hz=24_000,
    limits=Limits(max_pending_chars=20_000, idle_timeout_s=20, slow_reader_timeout_s=30),
    resume_token="token",
)
RESUMED = Resumed(session="1", generation=0, sample_offset=0, text_chars=0, ended=False)


async def test_a_connection_on_which_a_resume_was_refused_is_closed_before_the_next_try() -> None:
    answers: list[tuple[Message, ...]] = [
        (READY,),
        (Error.of(Overloaded("all places are taken"), session="1", closed=True),),
        (RESUMED, Done(session="1", samples=0, ledger=Ledger())),
    ]
    sockets: list[ServerConnection] = []
    open_then: list[int] = []

    async def talk(socket: ServerConnection) -> None:
        sockets.append(socket)
        open_then.append(sum(it.close_code is None for it in sockets))
        assert json.loads(await socket.recv())["type"] in ("start", "resume")
        for message in answers[len(sockets) - 1]:
            await socket.send(message.model_dump_json())
        if len(sockets) == 1:
            await socket.close()
        await socket.wait_closed()

    async with serve(talk, "127.0.0.1", 0, compression=None, close_timeout=1) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        async with open_resuming_session([f"http://127.0.0.1:{port}"], None, voice="slt") as session:
            assert [type(event) async for event in session] == [Done]
    assert open_then == [1, 1, 1]
