"""Which session yields to which at a worker: its private server over real sockets, a scripted engine, a tiny codec."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.speech.protocol import AudioFrame, Error, Uttered
from app.speech.voices import Voice
from tests.support.deadlines import HANG_S
from tests.support.fakes import FakeEngine
from tests.unit.workers.test_server import WREN, Talk, clone, good_store, serving, session
from workers.server import WorkerServer

pytestmark = pytest.mark.anyio


class Callers:
    """Sessions at one worker, that stay until the test ends."""

    def __init__(self, server: WorkerServer, stack: AsyncExitStack) -> None:
        self._server = server
        self._stack = stack

    async def background(self, name: str, voice: Voice = WREN) -> Talk:
        return await self._stack.enter_async_context(session(self._server, name, voice=voice, pace="background"))

    async def interactive(self, name: str, voice: Voice = WREN) -> Talk:
        return await self._stack.enter_async_context(session(self._server, name, voice=voice, pace="realtime"))


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def worker(stack: AsyncExitStack, tmp_path: Path, engine: FakeEngine, **how: Any) -> tuple[WorkerServer, Callers]:
    server = await stack.enter_async_context(serving(engine, tmp_path, **how))
    return server, Callers(server, stack)


async def answer(talk: Talk) -> str:
    """The first answer: "ready", or the code of the refusal."""
    message = await talk.receive()
    return message.code if isinstance(message, Error) else message.type


async def end_of(talk: Talk) -> Error:
    while not isinstance(message := await talk.receive(), Error):
        pass
    return message


async def test_the_youngest_background_session_makes_way_and_its_request_is_gone_before_the_other_is_ready(
    stack: AsyncExitStack, tmp_path: Path
) -> None:
    engine = FakeEngine(frames_per_char=50)
    server, callers = await worker(stack, tmp_path, engine, capacity=2)
    older, younger = await callers.background("older"), await callers.background("younger")
    for talk in (older, younger):
        assert await answer(talk) == "ready"
        await talk.utter(f"A long tale of the {talk.name} one.")
        await talk.until(AudioFrame)
    engine.pause()

    live = await callers.interactive("live")

    assert await answer(live) == "ready"
    assert len(engine.running) == 1
    assert server.sessions == ("older", "live")
    goodbye = await end_of(younger)
    assert (goodbye.code, goodbye.retryable, goodbye.closed) == ("overloaded", True, True)
    engine.resume()
    await older.until(Uttered)
    await live.say("Here I am.")
    await live.end()


async def test_a_background_session_never_takes_a_place_from_anybody(stack: AsyncExitStack, tmp_path: Path) -> None:
    server, callers = await worker(stack, tmp_path, FakeEngine(), capacity=2)
    assert await answer(await callers.background("a")) == "ready"
    assert await answer(await callers.interactive("b")) == "ready"
    assert await answer(await callers.background("c")) == "overloaded"
    assert server.sessions == ("a", "b")


async def test_interactive_sessions_are_refused_only_when_all_places_are_interactive(
    stack: AsyncExitStack, tmp_path: Path
) -> None:
    server, callers = await worker(stack, tmp_path, FakeEngine(), capacity=2)
    evicted = [await callers.background(name) for name in ("a", "b")]
    for talk in evicted:
        assert await answer(talk) == "ready"
    assert [await answer(await callers.interactive(name)) for name in ("c", "d", "e")] == [
        "ready",
        "ready",
        "overloaded",
    ]
    assert server.sessions == ("c", "d")


async def test_many_that_come_at_once_each_get_the_place_of_another(stack: AsyncExitStack, tmp_path: Path) -> None:
    server, callers = await worker(stack, tmp_path, FakeEngine(), capacity=4)
    for number in range(4):
        assert await answer(await callers.background(f"b{number}")) == "ready"
    live = await asyncio.gather(*(callers.interactive(f"live{number}") for number in range(3)))
    assert await asyncio.gather(*map(answer, live)) == ["ready"] * 3
    assert sorted(server.sessions) == ["b0", "live0", "live1", "live2"]


async def test_a_lora_slot_that_only_background_sessions_pin_is_given_up(stack: AsyncExitStack, tmp_path: Path) -> None:
    ada, bob, eve = clone("ada"), clone("bob", lora_id=2), clone("eve", lora_id=3)
    server, callers = await worker(stack, tmp_path, FakeEngine(), fetch=good_store, max_loras=2, capacity=8)
    for name, voice in (("ada1", ada), ("base", WREN), ("bob1", bob), ("ada2", ada)):
        assert await answer(await callers.background(name, voice)) == "ready"
    assert await answer(await callers.background("eve.in.the.background", eve)) == "overloaded"

    assert await answer(await callers.interactive("eve", eve)) == "ready"

    assert server.sessions == ("ada1", "base", "ada2", "eve")
    described = server.describe()
    assert (described.inflight, described.background) == (1, 3)
    assert (described.active_adapters, described.background_adapters) == ({"eve@1"}, {"ada@1"})


async def test_a_slot_of_an_interactive_session_is_not_given_up(stack: AsyncExitStack, tmp_path: Path) -> None:
    ada, bob = clone("ada"), clone("bob", lora_id=2)
    server, callers = await worker(stack, tmp_path, FakeEngine(), fetch=good_store, max_loras=1, capacity=8)
    assert await answer(await callers.background("kept", ada)) == "ready"
    assert await answer(await callers.interactive("ada", ada)) == "ready"
    assert await answer(await callers.interactive("bob", bob)) == "overloaded"
    assert server.sessions == ("kept", "ada")


async def test_one_that_waits_for_its_adapter_makes_way_as_well(stack: AsyncExitStack, tmp_path: Path) -> None:
    engine = FakeEngine()
    loading = asyncio.Event()

    async def load_for_ever(adapter: object) -> None:
        loading.set()
        await asyncio.Event().wait()

    engine.load = load_for_ever
    _, callers = await worker(stack, tmp_path, engine, fetch=good_store, capacity=1)
    waiting = await callers.background("waiting", clone("ada"))
    await loading.wait()
    assert await answer(await callers.interactive("live")) == "ready"
    assert await answer(waiting) == "overloaded"


async def test_a_worker_that_drains_does_not_wait_for_narrations(stack: AsyncExitStack, tmp_path: Path) -> None:
    engine = FakeEngine(frames_per_char=50)
    server, callers = await worker(stack, tmp_path, engine)
    talk = await callers.background("a")
    assert await answer(talk) == "ready"
    await talk.utter("A long tale that does not matter.")
    await talk.until(AudioFrame)
    engine.pause()
    async with asyncio.timeout(HANG_S):
        await server.drain(60)
    assert not engine.running


async def test_metrics_tell_both_kinds_apart(stack: AsyncExitStack, tmp_path: Path) -> None:
    server, callers = await worker(stack, tmp_path, FakeEngine(), capacity=4)
    for name in ("a", "b"):
        assert await answer(await callers.background(name)) == "ready"
    assert await answer(await callers.interactive("c")) == "ready"
    async with httpx.AsyncClient() as client:
        page = (await client.get(f"{server.address.replace('ws:', 'http:')}/metrics")).text
    assert "carillon_worker_sessions 1.0" in page
    assert "carillon_worker_background_sessions 2.0" in page
