"""Cartesia's dialect where its documents are silent; what its SDK and the plugins do is in tests/clients."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from tests.api.conftest import House, OpenHouse
from tests.support.dialect_client import DialectClient, dialect_client
from tests.support.fake_worker import FakeWorker
from tests.support.session_client import spoken

pytestmark = pytest.mark.anyio

RAW = {"container": "raw", "encoding": "pcm_s16le", "sample_rate": 24_000}


def ask(text: str, **more: Any) -> dict[str, Any]:
    return {
        "model_id": "sonic-3",
        "voice": {"mode": "id", "id": "slt"},
        "output_format": RAW,
        "transcript": text,
        **more,
    }


def sockets(house: House) -> str:
    return f"{house.url.replace('http', 'ws')}/tts/websocket?cartesia_version=2025-04-16"


@pytest.fixture
async def client(house: House, worker: FakeWorker) -> AsyncIterator[DialectClient]:
    async with dialect_client(sockets(house), x_api_key=house.key) as client:
        yield client


def is_done(message: dict[str, Any]) -> bool:
    return message["type"] == "done"


# Over HTTP.


async def test_a_text_is_spoken_in_the_format_asked_for(house: House, worker: FakeWorker) -> None:
    answer = await house.http.post("/tts/bytes", json=ask("Hi there.", generation_config={"emotion": "happy"}))
    assert answer.content == spoken("Hi there.")
    assert answer.headers["x-carillon-ignored"] == "generation_config.emotion"


async def test_a_voice_may_be_a_plain_name(house: House, worker: FakeWorker) -> None:
    answer = await house.http.post("/tts/bytes", json=ask("Hi.", voice="slt"))
    assert answer.content == spoken("Hi.")


@pytest.mark.parametrize(
    ("more", "status", "param"),
    [
        ({"voice": {"mode": "embedding", "embedding": [0.1]}}, 400, "voice"),
        ({"voice": "nobody"}, 404, "voice"),
        ({"model_id": "nothing"}, 404, "model"),
        ({"output_format": {"container": "raw", "encoding": "pcm_s24le", "sample_rate": 24_000}}, 400, None),
        ({"output_format": {"container": "wav", "encoding": "pcm_f32le", "sample_rate": 24_000}}, 400, None),
        ({"speed": "hasty"}, 400, "speed"),
        ({"transcript": ""}, 400, "transcript"),
    ],
)
async def test_errors_are_in_their_words(
    house: House, worker: FakeWorker, more: dict[str, Any], status: int, param: str | None
) -> None:
    answer = await house.http.post("/tts/bytes", json=ask("Hi.", **more))
    body = answer.json()
    assert (answer.status_code, body["status_code"], body["param"]) == (status, status, param or body["param"])
    assert body["title"] and body["message"]


async def test_events_have_audio_times_and_an_end(house: House, worker: FakeWorker) -> None:
    answer = await house.http.post("/tts/sse", json=ask("It costs $3.", add_timestamps=True, context_id="a"))
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]
    assert b"".join(base64.b64decode(it["data"]) for it in events if it["type"] == "chunk") == spoken("It costs $3.")
    [times] = [it["word_timestamps"] for it in events if it["type"] == "timestamps"]
    assert times["words"] == ["It", "costs", "$3."]
    assert events[-1] == {"type": "done", "done": True, "status_code": 200, "context_id": "a"}


async def test_voices_are_listed_in_pages(house: House, worker: FakeWorker) -> None:
    house.http.headers["cartesia-version"] = "2025-04-16"  # as their clients send; without it /voices is our console's
    first = (await house.http.get("/voices?limit=1")).json()
    assert ([voice["id"] for voice in first["data"]], first["has_more"]) == (["slt"], True)
    second = (await house.http.get("/voices?limit=1&starting_after=slt")).json()
    assert ([voice["id"] for voice in second["data"]], second["has_more"]) == (["rms"], False)
    assert (await house.http.get("/voices/rms")).json()["name"] == "rms"


# On the socket.


async def test_text_that_streams_in_is_spoken_to_its_end(client: DialectClient) -> None:
    for word in ("Hello ", "there. ", "Well."):
        await client.send(ask(word, context_id="a", **{"continue": True}))
    await client.send(ask("", context_id="a", **{"continue": False}))
    await client.until(is_done)
    assert client.audio("data", context_id="a") == spoken("Hello there.Well.")


async def test_an_end_with_other_defaults_than_the_beginning_ends_it(client: DialectClient) -> None:
    await client.send(ask("Hello.", context_id="a", **{"continue": True}))
    other = {"model_id": "sonic-latest", "voice": "6ccbfb76", "output_format": {**RAW, "sample_rate": 44_100}}
    await client.send(ask("", context_id="a", **other))
    await client.until(is_done)
    assert client.audio("data") == spoken("Hello.")


async def test_nothing_said_is_done_at_once(client: DialectClient, worker: FakeWorker) -> None:
    await client.send(ask("", context_id="a", **{"continue": False}))
    await client.until(is_done)
    assert worker.assigned == []


async def test_every_flush_is_answered_with_its_number(client: DialectClient) -> None:
    await client.send(ask("", context_id="a", flush=True, **{"continue": True}))
    await client.send(ask("No stop", context_id="a", flush=True, **{"continue": True}))
    await client.send(ask(" and more", context_id="a"))
    await client.until(is_done)
    assert [it["flush_id"] for it in client.all(type="flush_done")] == [1, 2]


async def test_cancelling_ends_it_at_the_worker(client: DialectClient, worker: FakeWorker) -> None:
    worker.allow(characters=4)
    await client.send(ask("One. Two. Three.", context_id="a", **{"continue": True}))
    await client.until(lambda it: it["type"] == "chunk")
    await client.send({"context_id": "a", "cancel": True})
    await client.until(is_done)
    await worker.until_sessions(0)


async def test_text_for_a_context_that_has_ended_is_refused(house: House, worker: FakeWorker) -> None:
    worker.allow(characters=1)
    async with dialect_client(sockets(house), x_api_key=house.key) as client:
        await client.send(ask("One.", context_id="a"))
        await client.send(ask("Two.", context_id="a"))
        error = await client.until(lambda it: it["type"] == "error")
        assert (error["context_id"], error["status_code"]) == ("a", 400)
        worker.allow(characters=None)
        await client.until(is_done)
    assert client.audio("data") == spoken("One.")


async def test_each_transcript_is_a_phrase_without_their_buffer(client: DialectClient) -> None:
    whole = {"max_buffer_delay_ms": 0, "add_timestamps": True, "continue": True}
    await client.send(ask("One.", context_id="a", **whole))
    await client.send(ask("Two.", context_id="a", **whole))
    await client.send(ask("", context_id="a"))
    await client.until(is_done)
    told = [it["word_timestamps"] for it in client.all(type="timestamps")]
    assert [it["words"] for it in told] == [["One."], ["Two."]]
    assert told[0]["end"][0] <= 0.2 <= told[1]["start"][0]


async def test_normalised_times_are_of_what_was_spoken(client: DialectClient) -> None:
    await client.send(ask("It costs $3.", context_id="a", add_timestamps=True, use_normalized_timestamps=True))
    await client.until(is_done)
    [told] = client.all(type="timestamps")
    assert told["word_timestamps"]["words"] == ["It", "costs", "three", "dollars."]


@pytest.mark.parametrize("message", ["no JSON", "[]", '{"transcript": 5, "context_id": "b"}', '{"transcript": "Hi."}'])
async def test_what_is_no_message_is_an_error_and_the_others_go_on(client: DialectClient, message: str) -> None:
    await client.send(message)
    error = await client.until(lambda it: it["type"] == "error")
    assert error["status_code"] == 400
    await client.send(ask("Hi.", context_id="a"))
    await client.until(is_done)
    assert client.audio("data", context_id="a") == spoken("Hi.")


@pytest.mark.parametrize("query", ["api_key", "access_token"])
async def test_a_key_may_come_in_the_address(house: House, worker: FakeWorker, query: str) -> None:
    async with dialect_client(f"{sockets(house)}&{query}={house.key}") as client:
        await client.send(ask("Hi.", context_id="a"))
        await client.until(is_done)


async def test_a_wrong_key_refuses_the_handshake(house: House, worker: FakeWorker) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with dialect_client(sockets(house), x_api_key="wrong"):
            pass
    assert refused.value.response.status_code == 401
    assert json.loads(refused.value.response.body)["error_code"] == "authentication_failed"


async def test_one_context_too_many_is_refused_alone(open_house: OpenHouse) -> None:
    async with (
        open_house(max_sessions_per_socket=1) as house,
        house.worker() as worker,
        dialect_client(sockets(house), x_api_key=house.key) as client,
    ):
        worker.allow(characters=0)
        await client.send(ask("One.", context_id="a"))
        await client.send(ask("Two.", context_id="b"))
        assert (await client.until(lambda it: it["type"] == "error"))["context_id"] == "b"
        worker.allow(characters=None)
        assert (await client.until(is_done))["context_id"] == "a"


async def test_a_text_beyond_what_may_wait_is_refused_and_what_came_before_is_heard(open_house: OpenHouse) -> None:
    async with (
        open_house(max_input_chars=100, max_pending_chars=100) as house,
        house.worker(),
        dialect_client(sockets(house), x_api_key=house.key) as client,
    ):
        await client.send(ask("One.", context_id="a", **{"continue": True}))
        await client.send(ask("x" * 200, context_id="a", **{"continue": True}))
        assert (await client.until(lambda it: it["type"] == "error"))["error_code"] == "text_too_long"
        await client.send(ask("", context_id="a"))
        await client.until(is_done)
        assert client.audio("data") == spoken("One.")
