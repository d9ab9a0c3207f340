"""The client that outlives its front door, at front doors that refuse it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from websockets.asyncio.server import ServerConnection, serve

from app.client.resuming import open_resuming_session
from app.errors import CarillonError, Overloaded, SpeechFailed, UnknownSession, WorkerLost
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


def refused(error: CarillonError) -> Error:
    return Error.of(error, session="1", closed=True)


@asynccontextmanager
async def front_door(*answers: tuple[Message, ...]) -> AsyncIterator[tuple[str, list[str]]]:
    """One that gives each connection the next of these answers; and what each was asked first."""
    asked: list[str] = []

    async def talk(socket: ServerConnection) -> None:
        asked.append(json.loads(await socket.recv())["type"])
        for message in answers[min(len(asked), len(answers)) - 1]:
            await socket.send(message.model_dump_json())
        await socket.wait_closed()

    async with serve(talk, "127.0.0.1", 0, compression=None, close_timeout=1) as server:
        yield f"http://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}", asked


async def test_a_session_that_cannot_go_on_for_now_is_resumed() -> None:
    done = Done(session="1", samples=0, ledger=Ledger())
    async with (
        front_door((READY, refused(WorkerLost("no other worker took it"))), (RESUMED, done)) as (url, asked),
        open_resuming_session([url], None, voice="slt") as session,
    ):
        assert [type(event) async for event in session] == [Done]
    assert asked == ["start", "resume"]


async def test_a_session_that_ends_again_and_again_without_a_sound_is_given_up() -> None:
    lost = refused(WorkerLost("no other worker took it"))
    async with (
        front_door((READY, lost), (RESUMED, lost)) as (url, asked),
        open_resuming_session([url], None, voice="slt") as session,
    ):
        with pytest.raises(WorkerLost):
            await anext(session)
    assert asked == ["start", "resume", "resume", "resume"]


async def test_a_session_that_is_not_known_any_more_is_started_again_where_nothing_was_heard() -> None:
    done = Done(session="1", samples=0, ledger=Ledger())
    lost, gone = refused(WorkerLost("no other worker took it")), refused(UnknownSession("there is no session"))
    async with (
        front_door((READY, lost), (gone,), (READY, done)) as (url, asked),
        open_resuming_session([url], None, voice="slt") as session,
    ):
        assert [type(event) async for event in session] == [Done]
    assert asked == ["start", "resume", "start"]


async def test_a_session_that_is_not_known_any_more_is_an_error_where_something_was_heard() -> None:
    lost, gone = refused(WorkerLost("no other worker took it")), refused(UnknownSession("there is no session"))
    heard = Resumed(session="1", generation=0, sample_offset=512, text_chars=0, ended=False)
    async with (
        front_door((READY, lost), (heard, lost), (gone,)) as (url, asked),
        open_resuming_session([url], None, voice="slt") as session,
    ):
        with pytest.raises(UnknownSession):
            await anext(session)
    assert asked == ["start", "resume", "resume"]


async def test_a_fault_of_the_session_itself_ends_it() -> None:
    async with (
        front_door((READY, refused(SpeechFailed("change the text")))) as (url, asked),
        open_resuming_session([url], None, voice="slt") as session,
    ):
        with pytest.raises(SpeechFailed):
            await anext(session)
    assert asked == ["start"]
