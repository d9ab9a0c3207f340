"""Resumable sessions: their front door is killed, cut off or left, and they go on at another, sample for sample."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from redis.asyncio import Redis
from websockets.exceptions import ConnectionClosed

from app.errors import EngineFailed, SpeechFailed
from app.fleet.registry import ROOT, open_redis
from app.realtime.journal import BYTES_PER_SAMPLE, Journal
from app.speech.choices import Scope
from app.speech.protocol import Cancelled, Done, Error, Flushed, GoAway, Ready, Resumed, Segment
from tests.api.conftest import House, OpenHouse
from tests.support.deadlines import HANG_S
from tests.support.fake_worker import SAMPLES_PER_CHARACTER, FakeWorker
from tests.support.mortal_front_door import MortalDoor, mortal_door
from tests.support.session_client import SessionsClient, sessions_client, spoken

pytestmark = pytest.mark.anyio

SENTENCES = ("The first sentence.", "And here is the second.", "The third one!")
TEXT = "".join(SENTENCES)
WHOLE = spoken(TEXT)
NEVER = 3600


@dataclass
class Scene:
    """A client at a front door that may be killed, another front door of the same fleet, and their worker."""

    house: House
    worker: FakeWorker
    door: MortalDoor
    client: SessionsClient
    redis: Redis

    async def begin(self, *texts: str, ended: bool = False, **start: Any) -> str:
        """Start "s1", which may not sound yet; the token to resume it with."""
        self.worker.allow(characters=0)
        await self.client.send("start", "s1", **{"voice": "slt", "resumable": True, **start})
        token = (await self.client.until(Ready, "s1")).resume_token
        assert token
        for text in texts:
            await self.client.send("text", "s1", text=text)
        if ended:
            await self.client.send("eos", "s1")
        return token

    async def hear(self, characters: int) -> int:
        """Let so many characters sound, and wait until they are heard; the samples received."""
        self.worker.allow(characters=characters)
        await self.client.until_frames("s1", characters)
        return len(self.client.heard("s1")) // BYTES_PER_SAMPLE

    def another(self, key: str | None = None) -> AbstractAsyncContextManager[SessionsClient]:
        """A connection to the other front door."""
        return sessions_client(self.house.sessions_url, key or self.house.key)

    async def journals(self) -> list[Journal]:
        """As they are in Redis."""
        keys = [key async for key in self.redis.scan_iter(match=f"{ROOT}journal:*")]
        records = [await self.redis.hget(key, "journal") for key in keys]  # type: ignore[misc]
        return [Journal.restored(record) for record in records if isinstance(record, bytes)]

    async def until_written(self, **least: int) -> None:
        """Return once the journal in Redis has at least these values."""
        async with asyncio.timeout(HANG_S):
            while not any(
                all(getattr(it, name) >= value for name, value in least.items()) for it in await self.journals()
            ):
                await asyncio.sleep(0.01)

    async def until_cancel_written(self) -> None:
        async with asyncio.timeout(HANG_S):
            while not any(it.cancels for it in await self.journals()):
                await asyncio.sleep(0.01)

    async def until_forgotten(self) -> None:
        async with asyncio.timeout(HANG_S):
            while await self.journals():
                await asyncio.sleep(0.01)


@asynccontextmanager
async def opened(open_house: OpenHouse, *, capacity: int = 4, **limits: Any) -> AsyncIterator[Scene]:
    async with (
        open_house(**{"journal_interval_s": 0.02, **limits}) as house,
        mortal_door(house.settings) as door,
        house.worker(capacity=capacity) as worker,
        sessions_client(door.sessions_url, house.key) as client,
    ):
        await door.until_known(worker)
        redis = open_redis(house.settings)
        yield Scene(house, worker, door, client, redis)
        await redis.aclose()


@pytest.fixture
async def scene(open_house: OpenHouse) -> AsyncIterator[Scene]:
    async with opened(open_house) as scene:
        yield scene


async def resume(client: SessionsClient, token: str, received: int | None, **fields: Any) -> Resumed:
    await client.send("resume", "r1", token=token, received_samples=received, **fields)
    return await client.until(Resumed, "r1")


@pytest.mark.parametrize("heard", [0, 1, 7, 18, 19, 20, 40])
@pytest.mark.parametrize("unreceived", [0, 700, 9 * SAMPLES_PER_CHARACTER])
async def test_a_session_whose_front_door_is_killed_is_heard_to_its_end(
    scene: Scene, heard: int, unreceived: int
) -> None:
    token = await scene.begin(*SENTENCES, ended=True)
    received = max(0, await scene.hear(heard) - unreceived)
    await scene.until_written(samples=heard * SAMPLES_PER_CHARACTER, ended=True)
    scene.door.kill()
    async with scene.another() as client:
        resumed = await resume(client, token, received)
        scene.worker.allow(characters=None)
        done = await client.until(Done, "r1")
        assert (resumed.sample_offset, resumed.text_chars, resumed.ended) == (received, len(TEXT), True)
        assert client.frames["r1"][0].sample_offset == received
        assert scene.client.heard("s1")[: 2 * received] + client.heard("r1") == WHOLE
        assert done.samples == len(WHOLE) // BYTES_PER_SAMPLE
        assert not client.all(Error, "r1")


async def test_what_was_never_written_is_spoken_and_sent_again(open_house: OpenHouse) -> None:
    async with opened(open_house, journal_interval_s=NEVER) as scene:
        token = await scene.begin()
        await scene.until_written()
        await scene.client.send("text", "s1", text=TEXT)
        received = await scene.hear(7)
        scene.door.kill()
        async with scene.another() as client:
            resumed = await resume(client, token, received)
            assert (resumed.sample_offset, resumed.text_chars, resumed.ended) == (0, 0, False)
            scene.worker.allow(characters=None)
            await client.send("text", "r1", text=TEXT)
            await client.send("eos", "r1")
            await client.until(Done, "r1")
            assert client.heard("r1") == WHOLE


async def test_a_session_killed_between_two_chunks_takes_the_text_that_follows(scene: Scene) -> None:
    token = await scene.begin(SENTENCES[0])
    await scene.hear(len(SENTENCES[0]))
    segment = await scene.client.until(Segment, "s1")
    await scene.until_written(samples=segment.end_sample)
    scene.door.kill()
    scene.worker.allow(characters=None)
    async with scene.another() as client:
        resumed = await resume(client, token, segment.end_sample)
        assert (resumed.sample_offset, resumed.text_chars) == (segment.end_sample, len(SENTENCES[0]))
        await client.send("text", "r1", text=TEXT[resumed.text_chars :])
        await client.send("eos", "r1")
        await client.until(Done, "r1")
        assert scene.client.heard("s1") + client.heard("r1") == WHOLE
        assert [told.text for told in client.all(Segment, "r1")] == ["".join(SENTENCES[1:])]


async def test_a_cancel_that_was_not_answered_is_answered(scene: Scene) -> None:
    token = await scene.begin("One two. Three four five.")
    received = await scene.hear(12)
    scene.worker.deaf = True
    await scene.client.send("cancel", "s1", played_samples=8 * SAMPLES_PER_CHARACTER)
    await scene.until_cancel_written()
    scene.door.kill()
    scene.worker.deaf = False
    async with scene.another() as client:
        resumed = await resume(client, token, received)
        cancelled = await client.until(Cancelled, "r1")
        assert (resumed.generation, resumed.text_chars) == (1, 0)
        assert cancelled.generation == 1
        assert cancelled.spoken_text and "One two. Three four five.".startswith(cancelled.spoken_text)
        scene.worker.allow(characters=None)
        await client.send("text", "r1", text="A new turn.")
        await client.send("eos", "r1")
        await client.until(Done, "r1")
        assert client.heard("r1") == spoken("A new turn.")
        assert {frame.generation for frame in client.frames["r1"]} == {1}


async def test_a_cancel_that_was_answered_is_told_by_the_generation(scene: Scene) -> None:
    token = await scene.begin("One two.")
    received = await scene.hear(3)
    await scene.client.send("cancel", "s1")
    await scene.client.until(Cancelled, "s1")
    await scene.until_written(generation=1)
    scene.door.kill()
    async with scene.another() as client:
        resumed = await resume(client, token, received)
        assert (resumed.generation, resumed.sample_offset, resumed.text_chars) == (1, received, 0)


async def test_a_flush_that_was_not_answered_is_answered(scene: Scene) -> None:
    token = await scene.begin("One two")
    await scene.client.send("flush", "s1")
    received = await scene.hear(3)
    await scene.until_written(samples=received)
    scene.door.kill()
    async with scene.another() as client:
        await resume(client, token, received)
        scene.worker.allow(characters=None)
        flushed = await client.until(Flushed, "r1")
        assert flushed.samples == len("One two") * SAMPLES_PER_CHARACTER


async def test_a_connection_that_breaks_is_resumed_from_what_was_last_sent(scene: Scene) -> None:
    token = await scene.begin(TEXT, ended=True)
    received = await scene.hear(10)
    scene.client.socket.transport.abort()
    await scene.worker.until_sessions(0)
    await scene.until_written(samples=received)
    async with scene.another() as client:
        resumed = await resume(client, token, None, window_samples=4_800)
        scene.worker.allow(characters=None)
        await client.until_frames("r1", 1)
        await client.send("credit", "r1", samples=10**6)
        await client.until(Done, "r1")
        assert resumed.sample_offset == received
        assert scene.client.heard("s1") + client.heard("r1") == WHOLE


@pytest.mark.parametrize("there", ["the same front door", "another front door"])
async def test_of_two_connections_the_later_has_the_session_and_the_former_is_told(scene: Scene, there: str) -> None:
    token = await scene.begin(TEXT, ended=True)
    received = await scene.hear(10)
    await scene.until_written(samples=received)
    url = scene.door.sessions_url if there == "the same front door" else scene.house.sessions_url
    async with sessions_client(url, scene.house.key) as client:
        resumed = await resume(client, token, received)
        refusal = await scene.client.refusal("s1")
        await scene.worker.until_sessions(1)
        await scene.worker.until_leases(1)
        scene.worker.allow(characters=None)
        await client.until(Done, "r1")
        assert (refusal.code, refusal.closed) == ("session_resumed", True)
        assert resumed.sample_offset == received
        assert scene.client.heard("s1")[: 2 * received] + client.heard("r1") == WHOLE
        assert (await client.until(Ready, "r1")).resume_token == token


async def test_a_session_can_be_resumed_again_and_again(scene: Scene) -> None:
    token = await scene.begin(TEXT, ended=True)
    received = await scene.hear(10)
    heard = scene.client.heard("s1")
    scene.client.socket.transport.abort()
    for _ in range(3):
        await scene.until_written(samples=received)
        scene.worker.allow(characters=0)
        async with scene.another() as client:
            assert (await resume(client, token, received)).sample_offset == received
            scene.worker.allow(characters=11)
            await client.until_frames("r1", 11)
            heard += client.heard("r1")
            received = len(heard) // BYTES_PER_SAMPLE
    scene.worker.allow(characters=None)
    async with scene.another() as client:
        await resume(client, token, received)
        await client.until(Done, "r1")
        assert heard + client.heard("r1") == WHOLE


async def test_a_server_that_shuts_down_does_not_wait_for_a_session_that_can_go_on_elsewhere(scene: Scene) -> None:
    token = await scene.begin(TEXT, ended=True)
    await scene.hear(10)
    scene.door.server.should_exit = True
    await scene.client.until(GoAway)
    with pytest.raises(ConnectionClosed):
        await scene.client.socket.wait_closed()
        await scene.client.socket.send("")
    await scene.worker.until_sessions(0)
    received = len(scene.client.heard("s1")) // BYTES_PER_SAMPLE
    await scene.until_written(samples=received)
    async with scene.another() as client:
        resumed = await resume(client, token, received)
        scene.worker.allow(characters=None)
        await client.until(Done, "r1")
        assert resumed.sample_offset == received
        assert scene.client.heard("s1") + client.heard("r1") == WHOLE


async def test_another_keys_session_is_as_unknown_as_none_and_stays_its_own(scene: Scene) -> None:
    token = await scene.begin(TEXT)
    stranger = await scene.house.catalog.keys.create("stranger", {Scope.SPEAK})
    await scene.until_written(text_chars=len(TEXT))
    async with scene.another(stranger.token) as client:
        await client.send("resume", "r1", token=token)
        await client.send("resume", "r2", token="no such token")
        refusals = [await client.refusal("r1"), await client.refusal("r2")]
        assert refusals[0].model_copy(update={"session": "r2"}) == refusals[1]
        assert (refusals[0].code, refusals[0].closed) == ("unknown_session", True)
    await scene.client.send("eos", "s1")
    scene.worker.allow(characters=None)
    await scene.client.until(Done, "s1")
    assert scene.client.heard("s1") == WHOLE


async def test_a_token_expires(open_house: OpenHouse) -> None:
    async with opened(open_house, resume_ttl_s=0.4) as scene:
        token = await scene.begin(TEXT)
        await scene.until_written(text_chars=len(TEXT))
        scene.door.kill()
        await scene.until_forgotten()
        async with scene.another() as client:
            await client.send("resume", "r1", token=token)
            refusal = await client.refusal("r1")
            assert refusal.code == "unknown_session"
            assert "start a new one" in refusal.message


async def test_a_session_that_has_ended_is_forgotten_with_its_text(open_house: OpenHouse) -> None:
    async with opened(open_house, resume_ttl_s=0.4) as scene:
        token = await scene.begin("Hello.", ended=True)
        await scene.until_written(text_chars=6)
        scene.worker.allow(characters=None)
        await scene.client.until(Done, "s1")
        await scene.until_forgotten()
        async with scene.another() as client:
            await client.send("resume", "r1", token=token)
            assert (await client.refusal("r1")).code == "unknown_session"


@pytest.mark.parametrize("received", [0, 7 * SAMPLES_PER_CHARACTER, len(WHOLE) // BYTES_PER_SAMPLE])
async def test_an_end_that_did_not_arrive_is_told_again_and_accounted_once(scene: Scene, received: int) -> None:
    """`done` is sent when it is handed to the socket: the network may still lose it, and the audio before it."""
    token = await scene.begin(TEXT, ended=True)
    scene.worker.allow(characters=None)
    await scene.client.until(Done, "s1")
    scene.client.socket.transport.abort()
    async with scene.another() as client:
        await scene.until_written(samples=len(WHOLE) // BYTES_PER_SAMPLE)
        resumed = await resume(client, token, received)
        done = await client.until(Done, "r1")
        assert (resumed.sample_offset, resumed.ended) == (received, True)
        assert client.heard("r1") == WHOLE[2 * received :]
        assert done.samples == len(WHOLE) // BYTES_PER_SAMPLE
    assert 'carillon_audio_seconds_total{edge="sessions"}' not in (await scene.house.http.get("/metrics")).text


async def test_what_was_cancelled_after_the_last_word_is_not_heard_again(scene: Scene) -> None:
    token = await scene.begin(TEXT, ended=True, window_samples=4_800)
    scene.worker.allow(characters=None)
    await scene.client.until_frames("s1", 1)
    await scene.worker.until_leases(0)
    await scene.client.send("cancel", "s1")
    await scene.client.until(Done, "s1")
    await scene.until_cancel_written()
    async with scene.another() as client:
        assert (await resume(client, token, 0)).generation == 1
        await client.until(Done, "r1")
        assert client.heard("r1") == b""


async def test_a_slow_reader_may_come_back(open_house: OpenHouse) -> None:
    async with opened(open_house, slow_reader_timeout_s=0.2) as scene:
        token = await scene.begin(TEXT, ended=True, window_samples=4_800)
        scene.worker.allow(characters=None)
        assert (await scene.client.refusal("s1")).code == "slow_reader"
        async with scene.another() as client:
            await resume(client, token, None)
            await client.until(Done, "r1")
            assert scene.client.heard("s1") + client.heard("r1") == WHOLE


async def test_a_session_that_no_worker_took_in_time_goes_on_when_there_is_one(open_house: OpenHouse) -> None:
    async with opened(open_house, move_timeout_s=0.2) as scene:
        token = await scene.begin(TEXT, ended=True)
        received = await scene.hear(10)
        scene.worker.refusal = EngineFailed("its engine restarts")
        await scene.worker.crash()
        assert (await scene.client.refusal("s1")).code == "worker_lost"
        scene.worker.refusal = None
        scene.worker.allow(characters=None)
        async with scene.another() as client:
            await resume(client, token, received)
            await client.until(Done, "r1")
            assert scene.client.heard("s1") + client.heard("r1") == WHOLE


async def test_an_error_that_ends_a_session_deletes_its_journal(scene: Scene) -> None:
    await scene.begin()
    await scene.until_written()
    scene.worker.failure = SpeechFailed("no such words")
    await scene.client.send("text", "s1", text="Hello.")
    assert (await scene.client.refusal("s1")).code == "speech_failed"
    await scene.until_forgotten()


async def test_a_session_that_did_not_ask_is_written_nowhere(scene: Scene) -> None:
    await scene.begin("Hello.")
    await scene.client.send("start", "s2", voice="slt")
    await scene.client.send("text", "s2", text="This is nobody's business. At all")
    assert (await scene.client.until(Ready, "s2")).resume_token is None
    await scene.until_written(text_chars=6)
    assert len(await scene.journals()) == 1


async def test_a_flushed_redis_is_told_and_filled_again_while_the_session_lives(scene: Scene) -> None:
    token = await scene.begin(TEXT)
    await scene.until_written(text_chars=len(TEXT))
    await scene.redis.flushdb()
    await scene.until_written(text_chars=len(TEXT))
    scene.door.kill()
    await scene.redis.flushdb()
    async with scene.another() as client:
        await client.send("resume", "r1", token=token)
        assert (await client.refusal("r1")).code == "unknown_session"


async def test_a_session_plays_on_while_redis_is_away(scene: Scene) -> None:
    await scene.begin(TEXT)
    scene.door.lose_redis()
    await scene.client.send("eos", "s1")
    scene.worker.allow(characters=None)
    await scene.client.until(Done, "s1")
    assert scene.client.heard("s1") == WHOLE


async def test_a_session_that_finds_no_room_can_be_resumed_later(open_house: OpenHouse) -> None:
    async with opened(open_house, capacity=2, move_timeout_s=0.5) as scene:
        token = await scene.begin(TEXT, ended=True)
        received = await scene.hear(10)
        scene.client.socket.transport.abort()
        await scene.until_written(samples=received)
        await scene.worker.until_leases(0)
        async with scene.another() as other, scene.another() as client:
            for id in ("a", "b"):
                await other.send("start", id, voice="slt")
                await other.send("text", id, text="An idle session would make room.")
                await other.until(Ready, id)
            await client.send("resume", "r1", token=token, received_samples=received)
            await client.send("text", "r1", text="Too early.")
            assert (await client.refusal("r1")).code == "invalid_request"
            refusal = await client.refusal("r1", count=2)
            assert (refusal.code, refusal.closed, refusal.retryable) == ("overloaded", True, True)
            scene.worker.allow(characters=None)
            await other.send("eos", "a")
            await other.until(Done, "a")
            await client.send("resume", "r2", token=token, received_samples=received)
            await client.until(Done, "r2")
            assert scene.client.heard("s1") + client.heard("r2") == WHOLE


@pytest.mark.parametrize("format", ["wav", "opus"])
async def test_an_encoded_stream_begins_again_on_another_connection(scene: Scene, format: str) -> None:
    token = await scene.begin(TEXT, ended=True, format=format)
    await scene.until_written(text_chars=len(TEXT))
    scene.door.kill()
    scene.worker.allow(characters=None)
    async with scene.another() as client:
        await resume(client, token, 0)
        await client.until(Done, "r1")
        assert (await client.until(Ready, "r1")).format == format
        assert client.heard("r1").startswith({"wav": b"RIFF", "opus": b"OggS"}[format])
