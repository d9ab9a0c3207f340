"""WS /v1/sessions met with bad input, clients that vanish and workers that fail: the other sessions go on."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.frames import Frame, Opcode

from app.api.native.send_queue import MAX_ITEMS
from app.errors import EngineFailed
from app.realtime.session import MAX_MOVES_PER_CHUNK
from app.speech.protocol import Done, Error, Pong, Ready
from tests.api.conftest import House, OpenHouse
from tests.support.fake_worker import FakeWorker
from tests.support.session_client import SessionsClient, sessions_client, spoken, still_speaks

pytestmark = pytest.mark.anyio


async def test_text_that_waits_for_a_session_on_the_move_is_counted(client: SessionsClient, worker: FakeWorker) -> None:
    worker.allow(characters=2)
    await client.send("start", "s1", voice="slt")
    await client.send("text", "s1", text="One two.")
    await client.until_frames("s1", 2)
    worker.refusal = EngineFailed("its engine restarts")
    await worker.crash()
    await worker.until_sessions(0)
    for number in range(3):
        await client.send("ping", id=str(number))
        await client.until(Pong, count=2 * number + 1)
        await client.send("text", "s1", text="a" * 15_000)
        await client.send("ping", id="then")
        await client.until(Pong, count=2 * number + 2)
    assert [error.code for error in client.all(Error, "s1")] == ["text_too_long"] * 2


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
    named = '"session": "s1"' in str(raw)
    error = await client.refusal("s1" if named else None)
    assert (error.code, error.closed) == (code, named)
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


SILENT = ("\x00\x07", "\U0001f514")
"""Of what is left of them there is nothing to speak: control characters and emoji go."""


@pytest.mark.parametrize(
    "text", ["", "   ", "<laugh>", "\x00\x07", "\U0001f514", "Привет. 你好。", "\u202e\u200d\ufeff", "e\u0301."]
)
async def test_odd_text_is_no_error(client: SessionsClient, text: str) -> None:
    await client.say("s1", text)
    await client.until(Done, "s1")
    assert client.heard("s1") == spoken("" if text in SILENT else text.strip())


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
            await worker.until_sessions(0)
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


async def test_a_session_whose_worker_is_gone_for_good_ends_and_the_socket_goes_on(open_house: OpenHouse) -> None:
    async with (
        open_house(move_timeout_s=0.2) as house,
        house.worker() as worker,
        sessions_client(house.sessions_url, house.key) as client,
    ):
        worker.allow(characters=1)
        await client.say("s1", "Hello.")
        await client.until_frames("s1", 1)
        await worker.stop_listening()
        await worker.crash()
        error = await client.refusal("s1")
        assert (error.code, error.closed, error.retryable) == ("worker_lost", True, True)
        await client.send("ping")
        await client.until(Pong)


async def test_a_text_over_which_one_worker_after_the_other_fails_is_given_up(
    client: SessionsClient, worker: FakeWorker
) -> None:
    worker.failure = EngineFailed("the engine is gone")
    await client.say("s1", "Hello.")
    error = await client.refusal("s1")
    assert (error.code, error.closed, error.retryable) == ("speech_failed", True, False)
    assert "the engine is gone" in error.message
    assert len(worker.assigned) == 1 + MAX_MOVES_PER_CHUNK
    worker.failure = None
    assert await still_speaks(client)


async def test_a_worker_that_falls_silent_is_a_fault_only_while_an_answer_is_due(open_house: OpenHouse) -> None:
    async with open_house(stall_timeout_s=0.2, move_timeout_s=0.3) as house, house.worker() as worker:
        worker.allow(characters=0)
        async with sessions_client(house.sessions_url, house.key) as client:
            await client.send("start", "thinking", voice="slt")
            await client.say("stalled", "Hello.")
            assert "sent nothing" in (await client.refusal("stalled")).message
            worker.allow(characters=None)
            await client.send("text", "thinking", text="I was thinking.")
            await client.send("eos", "thinking")
            await client.until(Done, "thinking")


async def test_a_client_that_asks_without_end_and_takes_nothing_is_given_up(open_house: OpenHouse) -> None:
    async with (
        open_house(slow_reader_timeout_s=0.5) as house,
        house.worker(),
        sessions_client(house.sessions_url, house.key) as client,
    ):
        await client.send("start", "s1", voice="slt", window_samples=4_800)
        await client.until(Ready, "s1")
        await client.send("text", "s1", text="More than the window takes.")
        for _ in range(MAX_ITEMS + 1):
            await client.send("flush", "s1")
        assert (await client.refusal("s1")).code == "slow_reader"
