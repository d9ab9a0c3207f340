"""ElevenLabs' dialect where its documents are silent; what its SDKs and plugins do is in tests/clients."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

import pytest
from websockets.exceptions import InvalidStatus

from app.speech.choices import Scope
from tests.api.conftest import House, OpenHouse, Studio
from tests.support.dialect_client import DialectClient, dialect_client
from tests.support.fake_worker import FakeWorker
from tests.support.recordings import recording
from tests.support.session_client import spoken

pytestmark = pytest.mark.anyio

SPEECH = "/v1/text-to-speech/slt"
PCM = "output_format=pcm_24000"


def socket(
    house: House, path: str = "multi-stream-input", query: str = ""
) -> AbstractAsyncContextManager[DialectClient]:
    url = f"{house.url.replace('http', 'ws')}{SPEECH}/{path}?{PCM}&{query}"
    return dialect_client(url, xi_api_key=house.key)


@pytest.fixture
async def contexts(house: House, worker: FakeWorker) -> AsyncIterator[DialectClient]:
    async with socket(house) as client:
        yield client


def final(context: str) -> dict[str, object]:
    return {"isFinal": True, "contextId": context, "context_id": context}


# Over HTTP.


@pytest.mark.parametrize("path", ["", "/stream"])
async def test_a_text_is_spoken_in_the_format_asked_for(house: House, worker: FakeWorker, path: str) -> None:
    answer = await house.http.post(f"{SPEECH}{path}?{PCM}", json={"text": "Hi there.", "model_id": "eleven_flash_v2_5"})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "audio/pcm")
    assert answer.content == spoken("Hi there.")


async def test_what_cannot_be_followed_is_named(house: House, worker: FakeWorker) -> None:
    body = {"text": "Hi.", "seed": 1, "previous_text": "So.", "voice_settings": {"stability": 0.5, "speed": 1.0}}
    answer = await house.http.post(SPEECH, json=body)
    assert answer.headers["x-carillon-ignored"] == "previous_text, seed, voice_settings.stability"


@pytest.mark.parametrize("name", ["mp3_44100", "mp3_44100_1", "pcm_24000_64", "pcm_9000", "ogg", "ulaw_16000"])
async def test_a_format_that_is_not_theirs_is_refused(house: House, worker: FakeWorker, name: str) -> None:
    answer = await house.http.post(f"{SPEECH}?output_format={name}", json={"text": "Hi."})
    detail = answer.json()["detail"]
    assert (answer.status_code, detail["param"]) == (400, "output_format")


@pytest.mark.parametrize(
    ("voice", "body", "said"),
    [
        ("nobody", {"text": "Hi."}, (404, "voice_not_found")),
        ("slt", {"text": "Hi.", "model_id": "nothing"}, (404, "model_not_found")),
        ("slt", {"text": ""}, (400, "invalid_request")),
        ("slt", {}, (400, "invalid_request")),
        ("slt", {"text": "x" * 5000}, (400, "max_character_limit_exceeded")),
    ],
)
async def test_errors_are_in_their_words(
    house: House, worker: FakeWorker, voice: str, body: dict[str, str], said: tuple[int, str]
) -> None:
    answer = await house.http.post(f"/v1/text-to-speech/{voice}", json=body)
    assert (answer.status_code, answer.json()["detail"]["status"]) == said


async def test_all_of_a_text_has_its_times(house: House, worker: FakeWorker) -> None:
    answer = await house.http.post(f"{SPEECH}/with-timestamps?{PCM}", json={"text": "It costs $3. Well."})
    told = answer.json()
    assert base64.b64decode(told["audio_base64"]) == spoken("It costs $3. Well.")
    assert "".join(told["alignment"]["characters"]) == "It costs $3. Well."
    assert "".join(told["normalized_alignment"]["characters"]) == "It costs three dollars. Well."


async def test_lines_have_audio_first_and_then_the_times_of_it(house: House, worker: FakeWorker) -> None:
    answer = await house.http.post(f"{SPEECH}/stream/with-timestamps?{PCM}", json={"text": "One. Two."})
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert b"".join(base64.b64decode(line["audio_base64"]) for line in lines) == spoken("One. Two.")
    assert ["".join(it["alignment"]["characters"]) for it in lines if it["alignment"]] == ["One. Two."]
    assert lines[0]["audio_base64"]


async def test_the_same_path_is_theirs_or_ours_by_the_key_s_header(house: House, worker: FakeWorker) -> None:
    ours = (await house.http.get("/v1/models")).json()
    theirs = (await house.http.get("/v1/models", headers={"xi-api-key": house.key})).json()
    assert ours["object"] == "list"
    assert [model["model_id"] for model in theirs] == ["standin"]


async def test_a_listing_needs_a_key(house: House, worker: FakeWorker) -> None:
    answer = await house.http.get("/v1/voices", headers={"xi-api-key": "wrong"})
    assert (answer.status_code, answer.json()["detail"]["status"]) == (401, "invalid_api_key")


# One text on a socket.


async def test_text_that_streams_in_is_spoken_to_its_end(house: House, worker: FakeWorker) -> None:
    async with socket(house, "stream-input") as client:
        await client.send({"text": " ", "voice_settings": None, "generation_config": {"chunk_length_schedule": [50]}})
        for word in ("Hello ", "there. ", "Well."):
            await client.send({"text": word, "try_trigger_generation": True})
        await client.send({"text": ""})
        assert await client.until_closed() == 1000
    assert client.audio("audio") == spoken("Hello there.Well.")
    assert client.received[-1] == {"audio": None, "isFinal": True}


async def test_a_flush_speaks_before_the_end_of_a_sentence(house: House, worker: FakeWorker) -> None:
    async with socket(house, "stream-input") as client:
        await client.send({"text": "No full stop ", "flush": True})
        await client.until(lambda it: it.get("audio"))


async def test_silence_for_too_long_ends_the_input(house: House, worker: FakeWorker) -> None:
    async with socket(house, "stream-input", "inactivity_timeout=0.1") as client:
        assert await client.until_closed() == 1008
    assert client.all(error="input_timeout_exceeded")


async def test_nothing_said_is_final_at_once(house: House, worker: FakeWorker) -> None:
    async with socket(house, "stream-input") as client:
        await client.send({"text": ""})
        assert await client.until_closed() == 1000
    assert client.received == [{"audio": None, "isFinal": True}]


async def test_a_key_may_come_in_the_first_message(house: House, worker: FakeWorker) -> None:
    url = f"{house.url.replace('http', 'ws')}{SPEECH}/stream-input?{PCM}"
    async with dialect_client(url) as client:
        await client.send({"text": " ", "xi_api_key": house.key})
        await client.send({"text": "Hi."})
        await client.send({"text": ""})
        assert await client.until_closed() == 1000
    async with dialect_client(url) as client:
        await client.send({"text": "Hi.", "xi_api_key": "wrong"})
        assert await client.until_closed() == 1008
    assert client.all(error="invalid_api_key")


@pytest.mark.parametrize(
    ("path", "key", "status"),
    [(f"{SPEECH}/stream-input", "wrong", 401), ("/v1/text-to-speech/nobody/stream-input", "", 404)],
)
async def test_a_handshake_is_refused_with_the_reason(
    house: House, worker: FakeWorker, path: str, key: str, status: int
) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with dialect_client(house.url.replace("http", "ws") + path, xi_api_key=key or house.key):
            pass
    assert refused.value.response.status_code == status
    assert b'"detail"' in refused.value.response.body


async def test_who_shows_no_key_is_not_told_what_voices_there_are(house: House, worker: FakeWorker) -> None:
    path = "/v1/text-to-speech/nobody/stream-input"
    async with dialect_client(house.url.replace("http", "ws") + path) as client:
        await client.send({"text": "Hi."})
        assert await client.until_closed() == 1008
    assert client.all(error="invalid_api_key")
    assert "slt" not in str(client.received)


# Several contexts.


async def test_the_end_of_a_turn_is_heard_however_soon_it_comes(contexts: DialectClient) -> None:
    await contexts.send({"text": " ", "context_id": "a"})
    await contexts.send({"text": "One. Two. ", "context_id": "a"})
    await contexts.send({"context_id": "a", "flush": True})
    await contexts.send({"context_id": "a", "close_context": True})
    await contexts.until(lambda it: it.get("isFinal"))
    assert contexts.audio("audio", contextId="a") == spoken("One. Two.")


async def test_any_other_close_is_a_barge_in(house: House, worker: FakeWorker) -> None:
    worker.allow(characters=4)
    async with socket(house) as client:
        await client.send({"text": "One. Two. Three. ", "context_id": "a"})
        await client.until(lambda it: it.get("audio"))
        await client.send({"context_id": "a", "close_context": True})
        await client.until(lambda it: it.get("isFinal"))
        await worker.until_sessions(0)
    assert len(client.audio("audio")) <= len(spoken("One."))


async def test_a_second_close_breaks_off_what_was_to_be_heard(house: House, worker: FakeWorker) -> None:
    worker.allow(characters=4)
    async with socket(house) as client:
        await client.send({"text": "One. Two. Three. ", "context_id": "a"})
        await client.send({"text": "", "context_id": "a", "flush": True})
        await client.send({"context_id": "a", "close_context": True})
        await client.until(lambda it: it.get("audio"))
        await client.send({"context_id": "a", "close_context": True})
        await client.until(lambda it: it.get("isFinal"))
        await worker.until_sessions(0)


async def test_contexts_are_spoken_beside_each_other(contexts: DialectClient) -> None:
    for name, text in (("a", "One."), ("b", "Two.")):
        await contexts.send({"text": text, "contextId": name})
        await contexts.send({"contextId": name, "flush": True})
        await contexts.send({"contextId": name, "close_context": True})
    for _ in "ab":
        await contexts.until(lambda it: it.get("isFinal"))
    assert contexts.audio("audio", context_id="a") == spoken("One.")
    assert contexts.audio("audio", context_id="b") == spoken("Two.")


async def test_a_name_may_be_used_again(contexts: DialectClient) -> None:
    for text in ("One.", "Two."):
        await contexts.send({"text": text, "context_id": "a"})
        await contexts.send({"context_id": "a", "flush": True})
        await contexts.send({"context_id": "a", "close_context": True})
        await contexts.until(lambda it: it.get("isFinal"))
    assert contexts.audio("audio") == spoken("One.Two.")


async def test_flushes_and_keep_alives_of_unknown_contexts_harm_nothing(contexts: DialectClient) -> None:
    for number in range(10):
        await contexts.send({"context_id": f"c{number}", "flush": True})
        await contexts.send({"text": "", "context_id": f"c{number}"})
    await contexts.send({"text": ""})
    await contexts.send({"context_id": "never", "close_context": True})
    await contexts.until(lambda it: it.get("isFinal"))
    assert contexts.received == [{"audio": None, **final("never")}]


async def test_a_context_without_a_word_holds_no_place(contexts: DialectClient, worker: FakeWorker) -> None:
    await contexts.send({"text": " ", "context_id": "a"})
    await contexts.send({"context_id": "a", "close_context": True})
    await contexts.until(lambda it: it.get("isFinal"))
    assert worker.assigned == []


async def test_an_idle_context_is_heard_to_its_end_and_closed(house: House, worker: FakeWorker) -> None:
    async with socket(house, query="inactivity_timeout=0.1") as client:
        await client.send({"text": "No full stop", "context_id": "a"})
        await client.until(lambda it: it.get("isFinal"))
    assert client.audio("audio") == spoken("No full stop")


async def test_each_message_is_a_phrase_in_auto_mode(house: House, worker: FakeWorker) -> None:
    async with socket(house, query="auto_mode=true&sync_alignment=true") as client:
        for text in ("One.", "Two."):
            await client.send({"text": text, "context_id": "a"})
        await client.send({"context_id": "a", "flush": True})
        await client.send({"context_id": "a", "close_context": True})
        await client.until(lambda it: it.get("isFinal"))
    told = [it["alignment"] for it in client.all() if it.get("alignment")]
    assert ["".join(it["chars"]) for it in told] == ["One.", " Two."]


@pytest.mark.parametrize(("query", "start_ms"), [("sync_alignment=true", 200), ("", 0)])
async def test_times_count_from_the_start_or_from_the_last_that_were_told(
    house: House, worker: FakeWorker, query: str, start_ms: int
) -> None:
    async with socket(house, query=query) as client:
        await client.send({"text": "One. ", "context_id": "a"})
        await client.send({"text": "Two. ", "context_id": "a"})
        await client.send({"context_id": "a", "flush": True})
        await client.send({"context_id": "a", "close_context": True})
        await client.until(lambda it: it.get("isFinal"))
    first, second = [it["alignment"] for it in client.all() if it.get("alignment")]
    assert first["charStartTimesMs"][-1] + first["charDurationsMs"][-1] == 200
    assert second["charStartTimesMs"][0] == start_ms
    assert second["charStartTimesMs"][-1] + second["charDurationsMs"][-1] == start_ms + 200


async def test_closing_the_socket_hears_what_was_flushed_and_drops_the_rest(house: House, worker: FakeWorker) -> None:
    async with socket(house) as client:
        await client.send({"text": "One.", "context_id": "a"})
        await client.send({"context_id": "a", "flush": True})
        await client.send({"text": "never spoken", "context_id": "b"})
        await client.send({"close_socket": True})
        assert await client.until_closed() == 1000
    assert client.audio("audio") == spoken("One.")
    assert {it["contextId"] for it in client.all(isFinal=True)} == {"a", "b"}


async def test_a_client_that_leaves_ends_its_sessions(house: House, worker: FakeWorker) -> None:
    worker.allow(characters=1)
    async with socket(house) as client:
        await client.send({"text": "A long story. ", "context_id": "a"})
        await worker.until_sessions(1)
    await worker.until_sessions(0)


async def test_too_many_contexts_close_the_socket_with_the_reason(open_house: OpenHouse) -> None:
    async with open_house(max_sessions_per_socket=2) as house, house.worker(), socket(house) as client:
        for name in "abc":
            await client.send({"text": " ", "context_id": name})
        assert await client.until_closed() == 1008
        assert "max_active_conversations" in client.all(code=1008)[0]["message"]


@pytest.mark.parametrize("message", ["no JSON", "[]", '{"text": 5}', '{"context_id": {"a": 1}}'])
async def test_what_is_no_message_closes_the_socket_with_the_reason(contexts: DialectClient, message: str) -> None:
    await contexts.send(message)
    assert await contexts.until_closed() == 1008
    assert contexts.all(error="invalid_request")


async def test_a_context_that_finds_no_place_says_so_and_ends(open_house: OpenHouse) -> None:
    async with open_house() as house, house.worker(capacity=1) as worker, socket(house) as client:
        worker.allow(characters=0)
        await client.send({"text": "One.", "context_id": "a"})
        await worker.until_sessions(1)
        await client.send({"text": "Two.", "context_id": "b"})
        error = await client.until(lambda it: it.get("error"))
        assert (error["error"], error["contextId"]) == ("system_busy", "b")
        await client.until(lambda it: it.get("isFinal") and it["contextId"] == "b")


# Voices in the making.


def makes(studio: Studio) -> dict[str, str]:
    """The header of a key that may clone."""
    return {"xi-api-key": studio.http.headers["authorization"].removeprefix("Bearer ")}


def reads(studio: Studio) -> dict[str, str]:
    return {"xi-api-key": studio.house.key}


async def test_a_voice_is_made_in_their_steps(studio: Studio) -> None:
    made = await studio.http.post("/v1/voices/pvc", json={"name": "Mary", "language": "en"}, headers=makes(studio))
    voice = made.json()["voice_id"]
    files = [("files", ("a.wav", recording(2.0))), ("files", ("b.wav", recording(3.0))), ("files", ("c.wav", b"no"))]
    samples = (await studio.http.post(f"/v1/voices/pvc/{voice}/samples", files=files, headers=makes(studio))).json()
    assert [sample["file_name"] for sample in samples] == ["a.wav", "b.wav"]
    refused = await studio.http.post(f"/v1/voices/pvc/{voice}/train", json={"model_id": "any"}, headers=makes(studio))
    assert (refused.status_code, refused.json()["detail"]["status"]) == (409, "consent_missing")
    told = (await studio.http.get(f"/v1/voices/{voice}", headers=reads(studio))).json()["fine_tuning"]
    assert told["state"] == {"standin": "not_started"}
    assert "I am the owner of this voice" in told["message"]["standin"]


async def test_a_verified_voice_is_trained_and_deleted(studio: Studio) -> None:
    made = await studio.http.post("/v1/voices/pvc", json={"name": "Mary", "language": "de"}, headers=makes(studio))
    voice = made.json()["voice_id"]
    for path in ("samples", "verification"):
        sent = {"files": ("a.wav", recording(8.0))}
        answer = await studio.http.post(f"/v1/voices/pvc/{voice}/{path}", files=sent, headers=makes(studio))
        assert answer.status_code == 200, answer.text
    async with studio.house.holder_of(Scope.ADMIN) as operator:  # nothing here hears German
        assert (await operator.post(f"/v1/voices/{voice}/consent", json={"statement": "Signed."})).status_code == 201
    trained = await studio.http.post(f"/v1/voices/pvc/{voice}/train", json={}, headers=makes(studio))
    assert trained.json() == {"status": "ok"}
    listed = (await studio.http.get("/v1/voices", headers=reads(studio))).json()["voices"]
    assert {it["voice_id"]: it["fine_tuning"] and it["fine_tuning"]["state"] for it in listed} == {
        "slt": None,
        "rms": None,
        voice: {"standin": "queued"},
    }
    assert (await studio.http.delete(f"/v1/voices/{voice}", headers=makes(studio))).json() == {"status": "ok"}
    assert (await studio.http.get(f"/v1/voices/{voice}", headers=reads(studio))).status_code == 404


async def test_an_instant_clone_keeps_its_recordings_and_says_what_is_missing(studio: Studio) -> None:
    sent = {"data": {"name": "Mary"}, "files": {"files": ("a.wav", recording(2.0))}, "headers": makes(studio)}
    answer = (await studio.http.post("/v1/voices/add", **sent)).json()
    assert answer["requires_verification"]
    record = await studio.house.catalog.voices.get(answer["voice_id"])
    assert (record.name, record.sample_count) == ("Mary", 1)


async def test_an_instant_clone_without_a_usable_recording_leaves_nothing(studio: Studio) -> None:
    sent = {"data": {"name": "Mary"}, "files": {"files": ("a.wav", b"no audio")}, "headers": makes(studio)}
    answer = await studio.http.post("/v1/voices/add", **sent)
    assert (answer.status_code, answer.json()["detail"]["code"]) == (400, "recording_unfit")
    assert await studio.house.catalog.voices.all() == []


async def test_cloning_needs_its_scope(house: House, worker: FakeWorker) -> None:
    answer = await house.http.post("/v1/voices/pvc", json={"name": "Mary"}, headers={"xi-api-key": house.key})
    assert (answer.status_code, answer.json()["detail"]["status"]) == (403, "missing_permissions")
