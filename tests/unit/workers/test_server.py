"""The worker's private server over real sockets: a scripted engine, a tiny codec."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import os
import threading
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from app.errors import AdapterUnavailable, EngineFailed, StoreUnavailable
from app.fleet.worker import WorkerState
from app.platform import profiles
from app.platform.settings import EngineSettings, SessionSettings, Settings
from app.speech.protocol import (
    WORKER_MESSAGES,
    Assign,
    AssignedPace,
    AudioFrame,
    Cancel,
    Done,
    Eos,
    Error,
    Text,
    Utter,
    parse,
)
from app.speech.voices import AdapterVersion, Voice
from tests.support.deadlines import HANG_S
from tests.support.fakes import FakeEngine
from tests.support.random_codecs import TINY, random_codec
from workers.adapters import AdapterCache, Fetch
from workers.decoder import Decoder
from workers.server import WorkerServer

pytestmark = pytest.mark.anyio

CODEC = random_codec(TINY)
WREN = Voice(id="wren", name="wren", model="fake")


ADAPTER = b'{"r": 16, "target_modules": ["q_proj"]}'


def clone(name: str, *, version: int = 1, lora_id: int = 1) -> Voice:
    adapter = AdapterVersion(
        voice_id=name,
        version=version,
        lora_id=lora_id,
        uri=f"s3://b/{name}/{version}/",
        sha256={"adapter_config.json": hashlib.sha256(ADAPTER).hexdigest()},
        rank=16,
    )
    return Voice(id=name, name=name, model="fake", adapter=adapter)


def good_store(uri: str, file: str, path: Path) -> None:
    path.write_bytes(ADAPTER)


def no_store(uri: str, file: str, path: Path) -> None:
    raise AdapterUnavailable(f"{uri}{file} does not exist")


@asynccontextmanager
async def serving(
    engine: FakeEngine,
    tmp_path: Path,
    *,
    fetch: Fetch = no_store,
    max_loras: int = 1,
    epoch: int = 7,
    **changes: Any,
) -> AsyncIterator[WorkerServer]:
    settings = Settings(
        fleet_secret=SecretStr("secret"),
        capacity=2,
        engine=EngineSettings(max_loras=max_loras),
        session=SessionSettings(slow_reader_timeout_s=0.5),
    ).model_copy(update=changes)
    clock = asyncio.get_running_loop().time
    profile = settings.over(profiles.CPU)
    adapters = AdapterCache(
        engine,
        fetch,
        tmp_path / "adapters",
        max_resident=2,
        max_rank=16,
        patience_s=settings.session.ready_timeout_s,
        clock=clock,
        retry_interval_s=0,
    )
    async with Decoder(CODEC, max_sessions=profile.capacity) as decoder, aclosing(adapters):
        server = WorkerServer(
            settings,
            worker_id="w1",
            epoch=epoch,
            profile=profile,
            engine=engine,
            decoder=decoder,
            adapters=adapters,
            clock=clock,
        )
        await server.listen()
        try:
            yield server
        finally:
            await server.drain(0)


@asynccontextmanager
async def session(
    server: WorkerServer, name: str, *, voice: Voice = WREN, epoch: int = 7, pace: AssignedPace = "unpaced"
) -> AsyncIterator[Talk]:
    headers = {"Authorization": "Bearer secret"}
    async with connect(f"{server.address}/session", additional_headers=headers, compression=None) as socket:
        await socket.send(Assign(session=name, epoch=epoch, voice=voice, pace=pace).model_dump_json())
        yield Talk(socket, name)


class Talk:
    """One session as the front door sees it."""

    def __init__(self, socket: ClientConnection, name: str) -> None:
        self.socket = socket
        self.name = name

    async def receive(self) -> Any:
        async with asyncio.timeout(HANG_S):
            raw = await self.socket.recv()
        return AudioFrame.unpack(raw) if isinstance(raw, bytes) else parse(WORKER_MESSAGES, raw)

    async def until(self, kind: type[Any]) -> Any:
        while not isinstance(message := await self.receive(), kind):
            assert not isinstance(message, Error), message
        return message

    async def say(self, text: str) -> None:
        await self.socket.send(Text(session=self.name, text=text).model_dump_json())

    async def utter(self, text: str, *, seed: int | None = None) -> None:
        await self.socket.send(Utter(session=self.name, text=text, seed=seed).model_dump_json())

    async def end(self) -> Done:
        await self.socket.send(Eos(session=self.name).model_dump_json())
        return await self.until(Done)


async def test_text_goes_in_and_audio_comes_out_until_done(tmp_path: Path) -> None:
    async with serving(FakeEngine(), tmp_path) as server, session(server, "a") as talk:
        assert (await talk.receive()).type == "ready"
        await talk.say("Hello there.")
        done = await talk.end()
        assert done.samples == len("Hello there.") * 32


async def test_health_follows_the_state(tmp_path: Path) -> None:
    async with serving(FakeEngine(), tmp_path) as server, httpx.AsyncClient() as client:
        url = server.address.replace("ws:", "http:")
        assert (await client.get(f"{url}/healthz")).text == "active\n"
        assert "carillon_worker_sessions 0.0" in (await client.get(f"{url}/metrics")).text
        server.state = WorkerState.DRAINING
        assert (await client.get(f"{url}/healthz")).status_code == 503


async def test_a_stranger_is_turned_away_at_the_door(tmp_path: Path) -> None:
    async with serving(FakeEngine(), tmp_path) as server:
        with pytest.raises(InvalidStatus, match="401"):
            await connect(f"{server.address}/session", additional_headers={"Authorization": "Bearer guess"})


@pytest.mark.parametrize(
    ("first", "code"),
    [
        ('{"type": "text", "session": "a", "text": "Hi"}', "invalid_request"),
        ("{nonsense", "invalid_request"),
        (b"\x01\x02", "invalid_request"),
        (Assign(session="a", epoch=6, voice=WREN).model_dump_json(), "worker_lost"),
        (
            Assign(session="a", epoch=7, voice=WREN.model_copy(update={"model": "x"})).model_dump_json(),
            "invalid_request",
        ),
    ],
    ids=["text first", "no JSON", "binary", "an older epoch", "another model"],
)
async def test_a_wrong_first_message_is_refused_with_the_reason(first: str | bytes, code: str, tmp_path: Path) -> None:
    async with serving(FakeEngine(), tmp_path) as server:
        headers = {"Authorization": "Bearer secret"}
        async with connect(f"{server.address}/session", additional_headers=headers) as socket:
            await socket.send(first)
            answer = json.loads(await socket.recv())
            assert (answer["type"], answer["code"], answer["closed"]) == ("error", code, True)


async def test_more_sessions_than_the_capacity_are_refused_and_the_others_play_on(tmp_path: Path) -> None:
    engine = FakeEngine(frames_per_char=30)
    async with (
        serving(engine, tmp_path) as server,
        session(server, "a") as first,
        session(server, "b") as second,
    ):
        await first.receive()
        await second.receive()
        async with session(server, "c") as third:
            refusal = await third.receive()
            assert isinstance(refusal, Error)
            assert (refusal.code, refusal.retryable) == ("overloaded", True)
        await first.say("Still here.")
        assert (await first.end()).samples == len("Still here.") * 30 * 32


async def test_a_bad_message_is_answered_and_its_session_goes_on(tmp_path: Path) -> None:
    async with serving(FakeEngine(), tmp_path) as server, session(server, "a") as talk:
        await talk.receive()
        await talk.socket.send('{"type": "dance", "session": "a"}')
        assert (await talk.receive()).code == "invalid_request"
        await talk.say("Unhurt.")
        assert (await talk.end()).samples == len("Unhurt.") * 32


async def test_a_front_door_that_vanishes_frees_the_engine_and_the_place(tmp_path: Path) -> None:
    engine = FakeEngine(frames_per_char=50)
    async with serving(engine, tmp_path) as server:
        async with session(server, "a") as talk:
            await talk.say("A long tale that nobody will hear to its end. ")
            await engine.progressed.wait()
            engine.pause()
        async with asyncio.timeout(HANG_S):
            await server._empty.wait()
        assert not engine.running
        assert server.sessions == ()


async def test_a_cancel_stops_the_engine_and_reports_what_was_played(tmp_path: Path) -> None:
    engine = FakeEngine(frames_per_char=50)
    async with serving(engine, tmp_path) as server, session(server, "a") as talk:
        await talk.say("Stop me. ")
        await talk.until(AudioFrame)
        engine.pause()
        await talk.socket.send(Cancel(session="a", played_samples=0).model_dump_json())
        while (message := await talk.receive()).__class__ is AudioFrame:
            pass
        assert (message.type, message.generation, message.spoken_text) == ("cancelled", 1, "")
        async with asyncio.timeout(HANG_S):
            while engine.running:
                await asyncio.sleep(0)


async def test_an_adapter_that_is_missing_fails_its_own_session_only(tmp_path: Path) -> None:
    version = AdapterVersion(voice_id="ada", version=1, lora_id=1, uri="s3://b/ada/", sha256={"x": "0"}, rank=16)
    clone = Voice(id="ada", name="Ada", model="fake", adapter=version)
    async with serving(FakeEngine(), tmp_path) as server, session(server, "a") as other:
        async with session(server, "b", voice=clone) as talk:
            refusal = await talk.receive()
            assert (refusal.code, refusal.closed) == ("adapter_unavailable", True)
        await other.say("Fine.")
        assert (await other.end()).samples == len("Fine.") * 32


async def test_no_more_distinct_voices_speak_than_there_are_lora_slots(tmp_path: Path) -> None:
    async with serving(FakeEngine(), tmp_path, fetch=good_store, capacity=4) as server:
        async with session(server, "a", voice=clone("ada")) as first:
            assert (await first.receive()).type == "ready"
            async with session(server, "b", voice=clone("bob", lora_id=2)) as other:
                refusal = await other.receive()
                assert (refusal.code, refusal.retryable, refusal.closed) == ("overloaded", True, True)
                assert refusal.retry_after_s > 0
            async with session(server, "c", voice=clone("ada")) as same, session(server, "d") as base:
                assert (await same.receive()).type == "ready"
                assert (await base.receive()).type == "ready"
        async with asyncio.timeout(HANG_S):
            await server._empty.wait()
        async with session(server, "e", voice=clone("bob", lora_id=2)) as later:
            assert (await later.receive()).type == "ready"


async def test_a_new_version_needs_a_slot_of_its_own_while_the_old_one_speaks(tmp_path: Path) -> None:
    old, new = clone("ada"), clone("ada", version=2, lora_id=2)
    async with (
        serving(FakeEngine(), tmp_path, fetch=good_store) as server,
        session(server, "a", voice=old) as first,
    ):
        assert (await first.receive()).type == "ready"
        async with session(server, "b", voice=new) as second:
            assert (await second.receive()).code == "overloaded"
    async with (
        serving(FakeEngine(), tmp_path, fetch=good_store, max_loras=2) as server,
        session(server, "a", voice=old) as first,
        session(server, "b", voice=new) as second,
    ):
        for talk in (first, second):
            assert (await talk.receive()).type == "ready"
        assert server.describe().active_adapters == {"ada@1", "ada@2"}


async def test_a_store_that_is_away_for_a_while_only_delays_the_session(tmp_path: Path) -> None:
    refusals = iter(range(20))

    def away_for_a_while(uri: str, file: str, path: Path) -> None:
        if next(refusals, None) is not None:
            raise StoreUnavailable("away")
        good_store(uri, file, path)

    async with (
        serving(FakeEngine(), tmp_path, fetch=away_for_a_while) as server,
        session(server, "a", voice=clone("ada")) as talk,
    ):
        assert (await talk.receive()).type == "ready"


async def test_a_full_disk_fails_its_own_session_only(tmp_path: Path) -> None:
    def full(uri: str, file: str, path: Path) -> None:
        path.write_bytes(ADAPTER[:7])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    engine = FakeEngine(frames_per_char=30)
    async with serving(engine, tmp_path, fetch=full) as server, session(server, "a") as other:
        await other.say("I speak all the while. ")
        await engine.progressed.wait()
        async with session(server, "b", voice=clone("ada")) as talk:
            refusal = await talk.receive()
            assert (refusal.code, refusal.closed) == ("adapter_unavailable", True)
            assert "CARILLON_DATA_DIR" in refusal.message
        assert (await other.end()).samples == len("I speak all the while.") * 30 * 32
        assert list((tmp_path / "adapters").iterdir()) == []


async def test_a_session_with_a_voice_being_deleted_finishes_and_the_next_is_refused(tmp_path: Path) -> None:
    engine = FakeEngine()
    async with serving(engine, tmp_path, fetch=good_store) as server:
        async with session(server, "a", voice=clone("ada")) as talk:
            assert (await talk.receive()).type == "ready"
            server._adapters.retire("ada")
            async with session(server, "b", voice=clone("ada")) as late:
                refusal = await late.receive()
                assert (refusal.code, refusal.closed) == ("unknown_voice", True)
            await talk.say("My last words.")
            assert (await talk.end()).samples == len("My last words.") * 32
        async with asyncio.timeout(HANG_S):
            await server._empty.wait()
            while server._adapters._work:
                await asyncio.wait(server._adapters._work)
        assert engine.unloaded == ["ada@1"]
        assert list((tmp_path / "adapters").iterdir()) == []


async def test_a_front_door_that_leaves_while_an_adapter_is_fetched_frees_the_place(tmp_path: Path) -> None:
    arriving, fetched = threading.Event(), threading.Event()

    def slow_store(uri: str, file: str, path: Path) -> None:
        arriving.set()
        fetched.wait(HANG_S)
        raise AdapterUnavailable("too late")

    version = AdapterVersion(voice_id="ada", version=1, lora_id=1, uri="s3://b/ada/", sha256={"x": "0"}, rank=16)
    clone = Voice(id="ada", name="Ada", model="fake", adapter=version)
    async with serving(FakeEngine(), tmp_path, fetch=slow_store) as server:
        async with session(server, "a", voice=clone):
            await asyncio.to_thread(arriving.wait, 10)
            assert server.sessions == ("a",)
        async with asyncio.timeout(HANG_S):
            await server._empty.wait()
        assert server.sessions == ()
        fetched.set()


async def test_an_engine_failure_reaches_the_front_door_as_its_code(tmp_path: Path) -> None:
    engine = FakeEngine()
    engine.failing = EngineFailed("the engine failed")
    async with serving(engine, tmp_path) as server, session(server, "a") as talk:
        await talk.receive()
        await talk.say("Never heard. Really.")
        assert (await talk.receive()).type == "begun"
        failure = await talk.receive()
        assert (failure.code, failure.retryable, failure.closed) == ("engine_failed", True, True)


async def test_draining_refuses_newcomers_and_lets_the_rest_finish(tmp_path: Path) -> None:
    engine = FakeEngine()
    async with serving(engine, tmp_path) as server, session(server, "a") as talk:
        await talk.receive()
        engine.pause()
        await talk.say("The last words. ")
        draining = asyncio.create_task(server.drain(10))
        assert (await talk.receive()).type == "goaway"
        async with session(server, "b") as late:
            assert (await late.receive()).code == "overloaded"
        engine.resume()
        assert (await talk.end()).samples == len("The last words.") * 32
        await draining
