"""WS /v1/sessions: many sessions on one socket, and what becomes of every kind of bad input."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from itertools import pairwise

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.frames import Frame, Opcode

from app.core.errors import EngineFailed
from app.core.messages import AudioFrame, Cancelled, Done, Flushed, GoAway, Pong, Ready, Segment
from tests.api.client import SessionsClient, sessions_client
from tests.api.conftest import House, OpenHouse
from tests.fake_worker import SAMPLES_PER_CHARACTER, FakeWorker, tone

pytestmark = pytest.mark.anyio


@pytest.fixture
async def worker(house: House) -> AsyncIterator[FakeWorker]:
    async with house.worker() as worker:
        yield worker


@pytest.fixture
async def client(house: House, worker: FakeWorker) -> AsyncIterator[SessionsClient]:
    async with sessions_client(house.sessions_url, house.key) as client:
        yield client


def spoken(text: str) -> bytes:
    return b"".join(map(tone, text))


async def still_speaks(client: SessionsClient, session: str = "after") -> bool:
    """The socket is alive: a new session is spoken from start to end."""
    await client.say(session, "Still here.", pace="unpaced")
    await client.until(Done, session)
    return client.heard(session) == spoken("Still here.")


# The ordinary way.


async def test_a_session_from_start_to_done(client: SessionsClient, worker: FakeWorker) -> None:
    await client.say("s1", "Hi there.")
    done = await client.until(Done, "s1")
    (ready,) = client.all(Ready, "s1")
    assert (ready.voice, ready.model, ready.worker, ready.stand_in) == ("slt", "standin", worker.id, True)
    assert ready.limits.max_pending_chars == 20_000
    (segment,) = client.all(Segment, "s1")
    assert (segment.text, segment.start_sample) == ("Hi there.", 0)
    assert segment.end_sample == done.samples == 9 * SAMPLES_PER_CHARACTER
    assert client.heard("s1") == spoken("Hi there.")


async def test_frames_are_numbered_without_gaps_and_say_where_they_belong(client: SessionsClient) -> None:
    await client.say("s1", "Hello.")
    await client.until(Done, "s1")
    frames = client.frames["s1"]
    assert [frame.sequence for frame in frames] == list(range(len(frames)))
    for before, after in pairwise(frames):
        assert after.sample_offset == before.sample_offset + len(before.audio) // 2


async def test_done_carries_the_whole_ledger(client: SessionsClient) -> None:
    await client.say("s1", "Hello.")
    ledger = (await client.until(Done, "s1")).ledger
    parts = (ledger.queue_ms, ledger.route_ms, ledger.prefill_ms, ledger.decode_ms, ledger.first_audio_ms)
    assert all(part is not None and part >= 0 for part in parts)
    assert ledger.samples == 6 * SAMPLES_PER_CHARACTER


async def test_audio_comes_before_the_text_has_ended(client: SessionsClient) -> None:
    await client.send("start", "s1", voice="slt")
    await client.send("text", "s1", text="One. ")
    await client.until_frames("s1", 4)
    await client.send("text", "s1", text="Two.")
    await client.send("eos", "s1")
    await client.until(Done, "s1")
    assert client.heard("s1") == spoken("One.Two.")


async def test_text_may_come_a_character_at_a_time(client: SessionsClient) -> None:
    await client.send("start", "s1", voice="slt")
    for character in "Hello you.":
        await client.send("text", "s1", text=character)
    await client.send("eos", "s1")
    await client.until(Done, "s1")
    assert client.heard("s1") == spoken("Hello you.")


async def test_flush_speaks_what_is_there_and_says_so(client: SessionsClient) -> None:
    await client.send("start", "s1", voice="slt")
    await client.send("text", "s1", text="no full stop")
    await client.send("flush", "s1")
    flushed = await client.until(Flushed, "s1")
    assert flushed.samples == 12 * SAMPLES_PER_CHARACTER
    assert client.heard("s1") == spoken("no full stop")


async def test_a_session_can_be_spoken_in_any_format(client: SessionsClient) -> None:
    await client.say("s1", "Hello.", format="flac")
    await client.until(Done, "s1")
    assert client.heard("s1").startswith(b"fLaC")


async def test_sessions_on_one_socket_are_spoken_side_by_side(client: SessionsClient) -> None:
    for name in ("a", "b", "c"):
        await client.say(name, f"This is {name}.")
    for name in ("a", "b", "c"):
        await client.until(Done, name)
        assert client.heard(name) == spoken(f"This is {name}.")


async def test_an_id_is_free_again_after_done(client: SessionsClient) -> None:
    await client.say("s1", "One.")
    await client.until(Done, "s1")
    await client.say("s1", "Two.")
    await client.until(Done, "s1", count=2)
    assert client.heard("s1") == spoken("One.Two.")


async def test_ping_is_answered_with_its_id(client: SessionsClient) -> None:
    await client.send("ping", id="p1")
    assert (await client.until(Pong)).id == "p1"


async def test_a_server_that_stops_says_goaway_and_lets_sessions_end(house: House, worker: FakeWorker) -> None:
    async with sessions_client(house.sessions_url, house.key) as client:
        worker.allow(characters=1)
        await client.say("s1", "Let me finish.")
        await client.until_frames("s1", 1)
        house.server.should_exit = True
        assert (await client.until(GoAway)).deadline_ms == 3_000
        await client.send("start", "s2", voice="slt")
        refusal = await client.refusal("s2")
        assert (refusal.code, refusal.closed, refusal.retryable) == ("overloaded", True, True)
        worker.allow(characters=None)
        await client.until(Done, "s1")
        assert client.heard("s1") == spoken("Let me finish.")
        await client.socket.wait_closed()
        assert client.socket.close_code == 1012


async def test_sessions_are_counted_by_their_end(client: SessionsClient, house: House, worker: FakeWorker) -> None:
    await client.say("s1", "Hello.")
    await client.until(Done, "s1")
    await client.send("start", "s2", voice="nobody")
    await client.refusal("s2")
    page = (await house.http.get("/metrics")).text
    assert 'carillon_latency_seconds_count{edge="sessions",part="first_audio"} 1.0' in page
    await worker.until_leases(0)
    page = (await house.http.get("/metrics")).text
    assert 'carillon_sessions_total{edge="sessions",outcome="done"} 1.0' in page
    assert 'carillon_sessions_total{edge="sessions",outcome="unknown_voice"} 1.0' in page


# Cancel.


async def test_after_cancel_nothing_old_is_heard_and_the_session_goes_on(
    client: SessionsClient, worker: FakeWorker
) -> None:
    worker.allow(characters=3)
    await client.send("start", "s1", voice="slt")
    await client.send("text", "s1", text="A long first turn.")
    await client.until_frames("s1", 3)
    await client.send("cancel", "s1")
    cancelled = await client.until(Cancelled, "s1")
    worker.allow(characters=None)
    before = len(client.frames["s1"])
    await client.send("text", "s1", text="Second.")
    await client.send("eos", "s1")
    await client.until(Done, "s1")
    assert all(frame.generation == cancelled.generation for frame in client.frames["s1"][before:])
    assert b"".join(frame.audio for frame in client.frames["s1"][before:]) == spoken("Second.")
    assert [segment.text for segment in client.all(Segment, "s1")] == ["Second."]


async def test_cancel_drops_old_audio_at_the_edge_before_the_worker_has_answered(
    client: SessionsClient, worker: FakeWorker
) -> None:
    await client.send("start", "s1", voice="slt", pace="unpaced")
    await client.send("text", "s1", text="x" * 2_000 + ".")
    await client.until_frames("s1", 1)
    await client.send("cancel", "s1")
    await client.send("ping")
    await client.until(Pong)
    await client.until(Cancelled, "s1")
    await client.send("text", "s1", text="New.")
    await client.send("eos", "s1")
    await client.until(Done, "s1")
    pong = next(index for index, item in enumerate(client.log) if isinstance(item, Pong))
    late = [item for item in client.log[pong:] if isinstance(item, AudioFrame) and item.generation == 0]
    assert not late


async def test_cancel_drops_text_that_still_waits_for_a_worker(open_house: OpenHouse) -> None:
    async with (
        open_house(queue_timeout_s=10) as house,
        house.worker(capacity=1) as worker,
        sessions_client(house.sessions_url, house.key) as client,
    ):
        worker.allow(characters=0)
        await client.say("first", "Holds the place.")
        await worker.until_sessions(1)
        await client.send("start", "second", voice="slt")
        await client.send("text", "second", text="Never heard.")
        await client.send("cancel", "second")
        await client.send("text", "second", text="Heard.")
        await client.send("eos", "second")
        worker.allow(characters=None)
        await client.until(Done, "second")
        assert client.heard("second") == spoken("Heard.")


async def test_cancels_in_one_burst_are_each_answered_and_the_next_turn_is_heard(client: SessionsClient) -> None:
    await client.send("start", "s1", voice="slt")
    await client.send("text", "s1", text="Old.")
    await client.send("cancel", "s1")
    await client.send("cancel", "s1")
    await client.send("text", "s1", text="New one.")
    await client.send("eos", "s1")
    await client.until(Done, "s1")
    assert client.heard("s1").endswith(spoken("New one."))


async def test_cancel_after_eos_ends_the_session(client: SessionsClient, worker: FakeWorker) -> None:
    worker.allow(characters=2)
    await client.say("s1", "A long last turn.")
    await client.until_frames("s1", 2)
    await client.send("cancel", "s1")
    await client.until(Done, "s1")
    assert client.all(Cancelled, "s1")
    assert client.heard("s1") == spoken("A ")


async def test_cancel_after_an_eos_that_still_waits_for_a_worker_ends_the_session(open_house: OpenHouse) -> None:
    async with (
        open_house(queue_timeout_s=10) as house,
        house.worker(capacity=1) as worker,
        sessions_client(house.sessions_url, house.key) as client,
    ):
        worker.allow(characters=0)
        await client.say("first", "Holds the place.")
        await worker.until_sessions(1)
        await client.say("second", "Never heard.")
        await client.send("cancel", "second")
        worker.allow(characters=None)
        await client.until(Done, "second")
        assert client.heard("second") == b""


async def test_cancel_after_the_worker_is_done_says_what_was_heard(client: SessionsClient, worker: FakeWorker) -> None:
    await client.say("s1", "One two three four.", window_samples=4_800)
    await client.until_frames("s1", 1)
    await worker.until_leases(0)
    await client.send("cancel", "s1", played_samples=9 * SAMPLES_PER_CHARACTER)
    cancelled = await client.until(Cancelled, "s1")
    assert cancelled.spoken_text == "One"
    await client.until(Done, "s1")


# Credit.


async def test_no_more_audio_is_sent_than_the_window_and_credit_allow(client: SessionsClient) -> None:
    await client.say("s1", "Hello you there.", window_samples=5_000)
    await client.send("ping")
    await client.until(Pong)
    await client.say("other", "Done.")
    await client.until(Done, "other")
    assert len(client.heard("s1")) == 5_000 * 2
    await client.send("credit", "s1", samples=1_000)
    await client.send("credit", "s1", samples=100_000)
    await client.until(Done, "s1")
    assert client.heard("s1") == spoken("Hello you there.")


async def test_a_session_without_credit_never_delays_another(client: SessionsClient) -> None:
    await client.say("stuck", "x" * 400 + ".", window_samples=4_800)
    await client.until_frames("stuck", 1)
    assert await still_speaks(client)
    assert not client.all(Done, "stuck")


async def test_audio_nobody_takes_closes_its_session_only(open_house: OpenHouse) -> None:
    async with (
        open_house(slow_reader_timeout_s=0.3, buffer_s=0.5) as house,
        house.worker() as worker,
        sessions_client(house.sessions_url, house.key) as client,
    ):
        await client.say("stuck", "x" * 400 + ".", window_samples=4_800)
        error = await client.refusal("stuck")
        assert (error.code, error.closed) == ("slow_reader", True)
        await worker.until_leases(0)
        assert await still_speaks(client)


# Bad input: a clear answer, and the other sessions go on.


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        ("", "invalid_request"),
        ("{", "invalid_request"),
        ("null", "invalid_request"),
        ('{"type": "sing"}', "invalid_request"),
        ('{"type": "start", "session": "s1"}', "invalid_request"),
        ('{"type": "start", "session": "a b", "voice": "slt"}', "invalid_request"),
        ('{"type": "start", "session": "", "voice": "slt"}', "invalid_request"),
        ('{"type": "start", "session": "s1", "voice": "slt", "speed": 9}', "invalid_request"),
        ('{"type": "start", "session": "s1", "voice": "slt", "volume": 1}', "invalid_request"),
        ('{"type": "ping", "id": "\\ud83d"}', "invalid_request"),
        (b"\x00\x01", "invalid_request"),
        (b'{"type": "ping"}', "invalid_request"),
    ],
)
async def test_a_message_that_is_none_is_answered_and_the_socket_goes_on(
    client: SessionsClient, raw: str | bytes, code: str
) -> None:
    await client.socket.send(raw)
    error = await client.refusal()
    assert (error.code, error.closed) == (code, False)
    assert await still_speaks(client)


async def test_a_megabyte_of_text_is_refused_with_the_limit(client: SessionsClient) -> None:
    await client.send("start", "s1", voice="slt")
    await client.send("text", "s1", text="x" * 1_000_000)
    assert "262144" in (await client.refusal()).message
    await client.send("text", "s1", text="Fine.")
    await client.send("eos", "s1")
    await client.until(Done, "s1")
    assert client.heard("s1") == spoken("Fine.")


async def test_more_text_than_may_be_pending_is_refused_with_the_limit(client: SessionsClient) -> None:
    await client.send("start", "s1", voice="slt")
    await client.send("text", "s1", text="x" * 20_001)
    error = await client.refusal("s1")
    assert (error.code, error.closed) == ("text_too_long", False)
    assert "20000" in error.message
    await client.send("text", "s1", text="Fine.")
    await client.send("eos", "s1")
    await client.until(Done, "s1")


async def test_a_session_id_used_twice_is_refused_and_the_first_goes_on(client: SessionsClient) -> None:
    await client.send("start", "s1", voice="slt")
    await client.send("start", "s1", voice="rms")
    error = await client.refusal("s1")
    assert (error.code, error.closed) == ("session_in_use", False)
    await client.send("text", "s1", text="First.")
    await client.send("eos", "s1")
    await client.until(Done, "s1")
    assert client.heard("s1") == spoken("First.")


@pytest.mark.parametrize("type", ["flush", "eos", "cancel"])
async def test_a_session_that_is_not_open_is_named(client: SessionsClient, type: str) -> None:
    await client.send(type, "nobody")
    assert (await client.refusal("nobody")).code == "unknown_session"
    assert await still_speaks(client)


async def test_text_after_eos_is_refused_and_what_came_before_is_spoken(
    client: SessionsClient, worker: FakeWorker
) -> None:
    worker.allow(characters=0)
    await client.say("s1", "Before.")
    await client.send("text", "s1", text="After.")
    await client.send("flush", "s1")
    assert (await client.refusal("s1")).code == "text_after_end"
    assert (await client.refusal("s1", count=2)).code == "text_after_end"
    worker.allow(characters=None)
    await client.until(Done, "s1")
    assert client.heard("s1") == spoken("Before.")


async def test_an_unknown_voice_closes_its_session_with_the_nearest_names(client: SessionsClient) -> None:
    await client.send("start", "s1", voice="slx")
    error = await client.refusal("s1")
    assert (error.code, error.closed) == ("unknown_voice", True)
    assert "slt" in error.message
    assert await still_speaks(client)


@pytest.mark.parametrize(
    "text", ["", "   ", "<laugh>", "\x00\x07", "\U0001f514", "Привет. 你好。", "\u202e\u200d\ufeff", "e\u0301."]
)
async def test_odd_text_is_no_error(client: SessionsClient, text: str) -> None:
    await client.say("s1", text)
    await client.until(Done, "s1")
    assert client.heard("s1") == spoken(text.strip())


async def test_half_a_character_closes_the_socket_with_1007_and_one_line_in_the_log(
    house: House, worker: FakeWorker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with (
        sessions_client(house.sessions_url, house.key) as other,
        connect(house.sessions_url, additional_headers={"Authorization": f"Bearer {house.key}"}, proxy=None) as socket,
    ):
        socket.transport.write(Frame(Opcode.TEXT, b'{"type": "ping", "id": "\xc3').serialize(mask=True))
        with pytest.raises(ConnectionClosedError) as closed:
            await socket.recv()
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 1007
        assert await still_speaks(other)
    assert not [record for record in caplog.records if record.exc_info]
    assert [record for record in caplog.records if "UTF-8" in record.getMessage()]


async def test_too_many_sessions_on_a_socket_are_refused_with_the_number(open_house: OpenHouse) -> None:
    async with (
        open_house(max_sessions_per_socket=2) as house,
        house.worker(),
        sessions_client(house.sessions_url, house.key) as client,
    ):
        for name in ("a", "b", "c"):
            await client.send("start", name, voice="slt")
        error = await client.refusal("c")
        assert error.closed
        assert "2 sessions" in error.message
        await client.send("eos", "a")
        await client.until(Done, "a")


async def test_two_hundred_sessions_on_a_fleet_for_four(house: House, worker: FakeWorker) -> None:
    worker.allow(characters=0)
    async with sessions_client(house.sessions_url, house.key) as first:
        for name in ("a", "b", "c", "d"):
            await first.say(name, "I had a place.")
        await worker.until_sessions(4)
        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(_all_refused(house, 49))
        worker.allow(characters=None)
        for name in ("a", "b", "c", "d"):
            await first.until(Done, name)
            assert first.heard(name) == spoken("I had a place.")
    await worker.until_leases(0)


async def _all_refused(house: House, sessions: int) -> None:
    async with sessions_client(house.sessions_url, house.key) as client:
        for number in range(sessions):
            await client.say(f"s{number}", "No room.")
        for number in range(sessions):
            error = await client.refusal(f"s{number}")
            assert (error.code, error.closed, error.retryable) == ("overloaded", True, True)
            assert error.retry_after_s


# Clients that vanish, stall or are strangers.


async def test_a_client_that_vanishes_ends_its_sessions_at_the_workers(house: House, worker: FakeWorker) -> None:
    worker.allow(characters=1)
    async with sessions_client(house.sessions_url, house.key) as client:
        await client.say("a", "Never finished.")
        await client.say("b", "Nor this.")
        await worker.until_sessions(2)
        client.socket.transport.abort()
        await worker.until_sessions(0)
    await worker.until_leases(0)


async def test_a_client_that_reads_nothing_is_given_up_and_others_go_on(open_house: OpenHouse) -> None:
    async with open_house(slow_reader_timeout_s=1.0) as house, house.worker() as worker:
        headers = {"Authorization": f"Bearer {house.key}"}
        async with (
            sessions_client(house.sessions_url, house.key) as other,
            connect(house.sessions_url, additional_headers=headers, proxy=None, max_queue=1, close_timeout=0) as deaf,
        ):
            deaf.transport.pause_reading()
            for name in ("a", "b", "c"):
                text = "x" * 15_000 + "."
                await deaf.send(json.dumps({"type": "start", "session": name, "voice": "slt", "pace": "unpaced"}))
                await deaf.send(json.dumps({"type": "text", "session": name, "text": text}))
            await worker.until_sessions(3)
            assert await still_speaks(other)
            await worker.until_sessions(0, timeout_s=20)
            deaf.transport.abort()
        await worker.until_leases(0)


async def test_without_a_key_there_is_no_socket(house: House) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with connect(house.sessions_url, proxy=None):
            pass
    assert refused.value.response.status_code == 401
    assert json.loads(refused.value.response.body or b"")["error"]["code"] == "authentication_failed"


async def test_a_browser_shows_its_key_as_a_subprotocol(house: House, worker: FakeWorker) -> None:
    async with connect(house.sessions_url, subprotocols=["carillon.v1", f"key.{house.key}"], proxy=None) as socket:  # type: ignore[list-item]
        assert socket.subprotocol == "carillon.v1"
        await socket.send('{"type": "ping"}')
        assert json.loads(await socket.recv())["type"] == "pong"


# Workers that fail.


async def test_a_lost_worker_closes_its_session_and_the_socket_goes_on(
    client: SessionsClient, worker: FakeWorker
) -> None:
    worker.allow(characters=1)
    await client.say("s1", "Hello.")
    await client.until_frames("s1", 1)
    await worker.crash()
    error = await client.refusal("s1")
    assert (error.code, error.closed, error.retryable) == ("worker_lost", True, True)
    worker.allow(characters=None)
    assert await still_speaks(client)


async def test_an_engine_that_fails_says_so_to_its_session(client: SessionsClient, worker: FakeWorker) -> None:
    worker.failure = EngineFailed("the engine is gone")
    await client.say("s1", "Hello.")
    error = await client.refusal("s1")
    assert (error.code, error.closed, error.message) == ("engine_failed", True, "the engine is gone")


async def test_a_worker_that_falls_silent_is_a_fault_only_while_an_answer_is_due(open_house: OpenHouse) -> None:
    async with open_house(stall_timeout_s=0.2) as house, house.worker() as worker:
        worker.allow(characters=0)
        async with sessions_client(house.sessions_url, house.key) as client:
            await client.send("start", "thinking", voice="slt")
            await client.say("stalled", "Hello.")
            assert (await client.refusal("stalled")).code == "deadline_exceeded"
            worker.allow(characters=None)
            await client.send("text", "thinking", text="I was thinking.")
            await client.send("eos", "thinking")
            await client.until(Done, "thinking")
