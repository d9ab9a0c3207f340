"""POST /v1/audio/speech and its neighbours, as OpenAI's SDK and plain HTTP clients use them."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import wave

import av
import httpx
import openai
import pytest

from app.errors import EngineFailed, Overloaded
from app.fleet.worker import WorkerState
from app.platform.settings import OpenAISettings
from app.voices.aliases import OPENAI_VOICES
from tests.api.conftest import House, OpenHouse
from tests.support.deadlines import HANG_S
from tests.support.fake_worker import SAMPLES_PER_CHARACTER, FakeWorker, tone
from tests.support.published import publish
from tests.support.session_client import SPEECH, error_of, speak

pytestmark = pytest.mark.anyio


def events_of(answer: httpx.Response) -> list[dict[str, object]]:
    return [json.loads(line.removeprefix("data: ")) for line in answer.text.split("\n\n") if line]


def decoded_samples(encoded: bytes) -> int:
    with av.open(io.BytesIO(encoded), "r") as container:
        return sum(frame.samples for frame in container.decode(audio=0))


async def test_pcm_is_the_workers_own_bytes(house: House, worker: FakeWorker) -> None:
    answer = await speak(house, "Hi.")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "audio/pcm"
    assert answer.content == tone("H") + tone("i") + tone(".")


async def test_the_head_tells_what_is_known_before_the_first_byte(house: House, worker: FakeWorker) -> None:
    answer = await speak(house)
    timings = dict(part.strip().split(";dur=") for part in answer.headers["server-timing"].split(","))
    assert timings.keys() == {"queue", "route", "first_audio"}
    assert all(float(milliseconds) >= 0 for milliseconds in timings.values())
    assert answer.headers["x-carillon-voice"] == "slt"
    assert answer.headers["x-carillon-model"] == "standin"
    assert answer.headers["x-carillon-worker"] == worker.id
    assert answer.headers["x-carillon-sample-rate"] == "24000"


@pytest.mark.parametrize(
    ("format", "content_type"),
    [("mp3", "audio/mpeg"), ("opus", "audio/ogg"), ("aac", "audio/aac"), ("flac", "audio/flac"), ("wav", "audio/wav")],
)
async def test_every_format_holds_the_whole_text(
    house: House, worker: FakeWorker, format: str, content_type: str
) -> None:
    answer = await speak(house, "A sentence of some length.", response_format=format)
    assert answer.headers["content-type"] == content_type
    wanted_s = len("A sentence of some length.") * SAMPLES_PER_CHARACTER / 24_000
    rate_hz = 48_000 if format == "opus" else 24_000
    assert decoded_samples(answer.content) / rate_hz == pytest.approx(wanted_s, abs=0.15)


async def test_without_a_format_it_is_mp3(house: House, worker: FakeWorker) -> None:
    assert (await speak(house, response_format=None)).headers["content-type"] == "audio/mpeg"


@pytest.mark.parametrize("text", ["Hi there.", "…"])
async def test_a_wav_that_is_soon_whole_tells_its_length(open_house: OpenHouse, text: str) -> None:
    async with open_house(openai=OpenAISettings(wav_hold_s=HANG_S)) as house, house.worker():
        answer = await speak(house, text, response_format="wav")
    with wave.open(io.BytesIO(answer.content)) as file:
        assert file.getnframes() == (len(answer.content) - 44) // 2 > 0


async def test_a_wav_that_is_long_in_coming_is_heard_meanwhile(house: House, worker: FakeWorker) -> None:
    body = {"model": "standin", "voice": "slt", "input": "One. Two.", "response_format": "wav"}
    worker.allow(characters=2)
    async with house.http.stream("POST", SPEECH, json=body) as answer:
        pieces = answer.aiter_bytes()
        heard = await anext(pieces)
        assert heard[4:8] == b"\xff" * 4
        worker.allow(characters=None)
        heard += b"".join([piece async for piece in pieces])
    assert heard[44:] == b"".join(map(tone, "One. Two."))


async def test_speed_shortens_the_audio(house: House, worker: FakeWorker) -> None:
    answer = await speak(house, "A sentence of some length.", speed=2.0)
    assert len(answer.content) / 2 == pytest.approx(26 * SAMPLES_PER_CHARACTER / 2, rel=0.1)


async def test_events_carry_the_audio_usage_and_the_whole_ledger(house: House, worker: FakeWorker) -> None:
    answer = await speak(house, "Hi.", stream_format="sse")
    assert answer.headers["content-type"].startswith("text/event-stream")
    *deltas, done = events_of(answer)
    assert all(event["type"] == "speech.audio.delta" for event in deltas)
    audio = b"".join(base64.b64decode(str(event["audio"])) for event in deltas)
    assert audio == tone("H") + tone("i") + tone(".")
    assert done["type"] == "speech.audio.done"
    assert done["usage"] == {"input_tokens": 3, "output_tokens": 7, "total_tokens": 10}
    ledger = done["ledger"]
    assert isinstance(ledger, dict)
    assert ledger["samples"] == 3 * SAMPLES_PER_CHARACTER
    assert all(ledger[part] is not None for part in ("queue_ms", "route_ms", "prefill_ms", "first_audio_ms"))


async def test_audio_arrives_while_the_worker_is_still_speaking(house: House, worker: FakeWorker) -> None:
    body = {"model": "standin", "voice": "slt", "input": "One. Two.", "response_format": "pcm"}
    worker.allow(characters=2)
    async with house.http.stream("POST", SPEECH, json=body) as answer:
        heard = b""
        pieces = answer.aiter_bytes()
        while len(heard) < 2 * len(tone("x")):
            heard += await anext(pieces)
        worker.allow(characters=None)
        heard += b"".join([piece async for piece in pieces])
    assert heard == b"".join(map(tone, "One. Two."))


async def test_a_voice_can_be_an_object_with_an_id(house: House, worker: FakeWorker) -> None:
    answer = await speak(house, voice={"id": "rms"})
    assert answer.headers["x-carillon-voice"] == "rms"


@pytest.mark.parametrize("model", ["tts-1", "tts-1-hd", "gpt-4o-mini-tts"])
async def test_openais_own_model_names_mean_whichever_model_has_the_voice(
    house: House, worker: FakeWorker, model: str
) -> None:
    assert (await speak(house, model=model)).headers["x-carillon-model"] == "standin"


async def test_the_openai_sdk_speaks_lists_models_and_understands_errors(house: House, worker: FakeWorker) -> None:
    async with openai.AsyncOpenAI(base_url=f"{house.url}/v1", api_key=house.key, max_retries=0) as client:
        async with client.audio.speech.with_streaming_response.create(
            model="tts-1", voice="slt", input="Hi.", response_format="pcm"
        ) as answer:
            assert await answer.read() == tone("H") + tone("i") + tone(".")
        assert [model.id async for model in client.models.list()] == ["standin"]
        assert (await client.models.retrieve("standin")).owned_by == "carillon"
        with pytest.raises(openai.NotFoundError, match="nearest are: slt") as unknown:
            await client.audio.speech.create(model="tts-1", voice="slx", input="Hi.")
        assert unknown.value.code == "unknown_voice"
        with pytest.raises(openai.BadRequestError, match="4096"):
            await client.audio.speech.create(model="tts-1", voice="slt", input="x" * 4097)
    async with openai.AsyncOpenAI(base_url=f"{house.url}/v1", api_key="wrong", max_retries=0) as stranger:
        with pytest.raises(openai.AuthenticationError):
            await stranger.audio.speech.create(model="tts-1", voice="slt", input="Hi.")


async def test_the_list_of_models_says_which_is_a_stand_in(house: House, worker: FakeWorker) -> None:
    (model,) = (await house.http.get("/v1/models")).json()["data"]
    assert (model["id"], model["object"], model["stand_in"]) == ("standin", "model", True)


async def test_the_list_of_voices_has_the_built_in_ones(house: House, worker: FakeWorker) -> None:
    voices = (await house.http.get("/v1/audio/voices")).json()["voices"]
    assert [(voice["id"], voice["kind"]) for voice in voices] == [("slt", "built_in"), ("rms", "built_in")]


async def test_a_clone_can_be_spoken_with_as_soon_as_it_is_published(house: House, worker: FakeWorker) -> None:
    await publish(house.catalog, "Ada", uri="file:///a/", sha256={"adapter_config.json": "0" * 64})
    async with asyncio.timeout(HANG_S):
        while (answer := await speak(house, voice="Ada")).status_code == 404:
            await asyncio.sleep(0.05)
    assert answer.content == tone("H") + tone("i") + tone(".")
    assert worker.assigned[-1].voice.adapter is not None


# What cannot be honoured is refused, with what is wrong and what to do.


async def test_no_text_at_all_is_refused(house: House, worker: FakeWorker) -> None:
    answer = await speak(house, "")
    assert answer.status_code == 400
    assert error_of(answer)["param"] == "input"


@pytest.mark.parametrize("text", [" ", "\n\t\u00a0", "👍", "———", "…", "."])
@pytest.mark.parametrize("format", ["pcm", "wav", "mp3", "opus", "aac", "flac"])
async def test_a_text_with_nothing_to_say_is_a_short_silence(
    house: House, worker: FakeWorker, text: str, format: str
) -> None:
    worker.mute = True
    answer = await speak(house, text, response_format=format)
    assert answer.status_code == 200
    assert answer.content


async def test_the_silence_is_a_tenth_of_a_second(house: House, worker: FakeWorker) -> None:
    worker.mute = True
    assert (await speak(house, "👍", response_format="pcm")).content == bytes(2 * 2400)


async def test_a_text_that_is_too_long_is_refused_with_the_limit(house: House, worker: FakeWorker) -> None:
    answer = await speak(house, "x" * 4097)
    assert answer.status_code == 400
    assert error_of(answer)["code"] == "text_too_long"
    assert "4097" in error_of(answer)["message"] and "4096" in error_of(answer)["message"]


async def test_a_megabyte_of_text_is_refused_before_it_is_read_whole(house: House, worker: FakeWorker) -> None:
    answer = await speak(house, "x" * 1_000_000)
    assert answer.status_code == 413
    assert error_of(answer)["code"] == "request_too_large"


async def test_the_longest_text_fits_however_it_is_escaped(house: House, worker: FakeWorker) -> None:
    assert (await speak(house, "\U0001f514" * 4096)).status_code == 200


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"speed": 0.1}, "speed"),
        ({"speed": 9}, "speed"),
        ({"response_format": "midi"}, "response_format"),
        ({"stream_format": "morse"}, "stream_format"),
        ({"voice": None}, "voice"),
        ({"voice": ""}, "voice.id"),
        ({"voice": 5}, "voice"),
        ({"voice": {"name": "slt"}}, "voice.id"),
        ({"input": None}, "input"),
        ({"input": 7}, "input"),
    ],
)
async def test_every_parameter_is_honoured_or_refused(
    house: House, worker: FakeWorker, fields: dict[str, object], param: str
) -> None:
    answer = await house.http.post(
        SPEECH,
        json={
            name: value
            for name, value in {"model": "standin", "voice": "slt", "input": "Hi.", **fields}.items()
            if value is not None
        },
    )
    assert answer.status_code == 400
    assert error_of(answer)["type"] == "invalid_request_error"
    assert error_of(answer)["param"] == param


async def test_what_cannot_be_followed_is_ignored_and_named(house: House, worker: FakeWorker) -> None:
    fields = {"instructions": "calm", "stream": True, "lang_code": "a", "backend": "x", "naïve": 1, "seed": None}
    answer = await speak(house, **fields)
    assert answer.status_code == 200
    assert answer.headers["x-carillon-ignored"] == r'instructions, backend, lang_code, "na\u00efve", stream'


async def test_nothing_is_named_where_nothing_was_ignored(house: House, worker: FakeWorker) -> None:
    assert "x-carillon-ignored" not in (await speak(house, instructions=" ")).headers


async def test_null_is_the_default(house: House, worker: FakeWorker) -> None:
    answer = await speak(house, response_format=None, speed=None, stream_format=None, model=None)
    assert answer.headers["content-type"] == "audio/mpeg"


@pytest.mark.parametrize("field", ["instructions", "volume"])
async def test_a_strict_front_door_refuses_what_it_cannot_follow(open_house: OpenHouse, field: str) -> None:
    async with open_house(openai=OpenAISettings(strict=True)) as house, house.worker():
        answer = await speak(house, **{field: "x"})
        assert answer.status_code == 400
        assert error_of(answer)["param"] == field


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"\xff\xfe", b'{"input": "\\ud83d"}'])
async def test_a_body_that_is_no_speech_request_is_refused(house: House, worker: FakeWorker, body: bytes) -> None:
    answer = await house.http.post(SPEECH, content=body)
    assert answer.status_code == 400
    assert error_of(answer)["code"] == "invalid_request"


async def test_an_unknown_voice_is_never_replaced(house: House, worker: FakeWorker) -> None:
    answer = await speak(house, voice="slit")
    assert answer.status_code == 404
    assert error_of(answer)["code"] == "unknown_voice"
    assert "slt" in error_of(answer)["message"]


@pytest.mark.parametrize("name", sorted(OPENAI_VOICES))
async def test_every_voice_name_of_openai_speaks(house: House, worker: FakeWorker, name: str) -> None:
    assert (await speak(house, voice=name)).headers["x-carillon-voice"] in ("slt", "rms")


async def test_an_operator_says_which_voice_a_name_means(open_house: OpenHouse) -> None:
    async with open_house(openai=OpenAISettings(voices={"alloy": "rms", "narrator": "rms"})) as house, house.worker():
        for name in ("alloy", "narrator"):
            assert (await speak(house, voice=name)).headers["x-carillon-voice"] == "rms"


async def test_a_voice_that_is_not_trained_yet_says_how_it_would_be(house: House, worker: FakeWorker) -> None:
    voice = await house.catalog.voices.create("Mary", model="standin")
    answer = await speak(house, voice=voice.id)
    assert answer.status_code == 404
    assert "not trained yet" in error_of(answer)["message"] and "POST /v1/clones" in error_of(answer)["message"]


async def test_an_unknown_model_is_refused_with_those_served(house: House, worker: FakeWorker) -> None:
    answer = await speak(house, model="orpheus")
    assert answer.status_code == 404
    assert error_of(answer)["code"] == "unknown_model"
    assert "standin" in error_of(answer)["message"]


@pytest.mark.parametrize(
    "text",
    [
        "<laugh>",
        "\x01\x07 hi \x7f",
        "\U0001f514\U0001f514",
        "Привет, мир. 你好。",
        "e\u0301\u200d\ufeff",
        "\u202eabc",
    ],
)
async def test_odd_text_reaches_the_worker_and_is_answered(house: House, worker: FakeWorker, text: str) -> None:
    answer = await speak(house, text)
    assert answer.status_code == 200
    assert answer.content


async def test_while_there_is_no_worker_one_is_to_come_again(house: House) -> None:
    answer = await speak(house)
    assert answer.status_code == 503
    assert error_of(answer)["code"] == "overloaded"
    assert int(answer.headers["retry-after"]) >= 1


async def test_while_all_workers_are_starting_one_is_to_come_again(house: House, worker: FakeWorker) -> None:
    worker.state = WorkerState.STARTING
    await worker.beat()
    async with asyncio.timeout(HANG_S):
        while (answer := await speak(house)).status_code == 200:
            pass
    assert answer.status_code == 503
    assert "starting" in error_of(answer)["message"]


async def test_a_full_fleet_is_503_with_a_time_to_come_again(house: House) -> None:
    async with house.worker(capacity=1) as worker:
        worker.allow(characters=0)
        first = asyncio.create_task(speak(house))
        await worker.until_sessions(1)
        second = await speak(house)
        assert second.status_code == 503
        assert int(second.headers["retry-after"]) >= 1
        assert error_of(second)["code"] == "overloaded"
        worker.allow(characters=None)
        assert (await first).status_code == 200


async def test_a_start_waits_for_a_place_that_comes_free_in_time(open_house: OpenHouse) -> None:
    async with open_house(queue_timeout_s=10) as house, house.worker(capacity=1) as worker:
        worker.allow(characters=0)
        answers = [asyncio.create_task(speak(house)) for _ in range(3)]
        await worker.until_sessions(1)
        worker.allow(characters=None)
        assert [(await answer).status_code for answer in answers] == [200, 200, 200]


async def test_the_same_voice_goes_to_the_same_worker(house: House) -> None:
    async with house.worker(id="w1"), house.worker(id="w2"), house.worker(id="w3"):
        for voice in ("slt", "rms"):
            answers = [await speak(house, voice=voice) for _ in range(4)]
            assert len({answer.headers["x-carillon-worker"] for answer in answers}) == 1


async def test_a_worker_that_refuses_is_passed_over_for_the_next(house: House) -> None:
    async with house.worker(id="w1") as first, house.worker(id="w2") as second:
        home = (await speak(house)).headers["x-carillon-worker"]
        refusing, willing = (first, second) if home == "w1" else (second, first)
        refusing.refusal = Overloaded("full, whatever the registry says")
        assert (await speak(house)).headers["x-carillon-worker"] == willing.id


async def test_a_worker_that_cannot_be_reached_is_passed_over_for_the_next(house: House) -> None:
    async with house.worker(id="w1") as first, house.worker(id="w2") as second:
        home = (await speak(house)).headers["x-carillon-worker"]
        dead, alive = (first, second) if home == "w1" else (second, first)
        await dead.stop_listening()
        assert (await speak(house)).headers["x-carillon-worker"] == alive.id


async def test_workers_that_fail_before_audio_are_told_with_a_status(house: House, worker: FakeWorker) -> None:
    worker.failure = EngineFailed("the engine is gone")
    answer = await speak(house)
    assert answer.status_code == 502
    assert error_of(answer)["code"] == "speech_failed"


async def test_text_that_a_worker_takes_only_a_part_of_is_an_error(house: House, worker: FakeWorker) -> None:
    small = worker.settings.session.model_copy(update={"max_pending_chars": 3})
    worker.settings = worker.settings.model_copy(update={"session": small})
    answer = await speak(house, "Too long.")
    assert (answer.status_code, error_of(answer)["code"]) == (400, "text_too_long")


async def test_a_worker_lost_during_the_audio_is_not_heard(house: House, worker: FakeWorker) -> None:
    worker.allow(characters=1)
    body = {"model": "standin", "voice": "slt", "input": "Hello.", "response_format": "pcm"}
    audio = b""
    async with house.http.stream("POST", SPEECH, json=body) as answer:
        async for piece in answer.aiter_bytes():
            audio += piece
            if len(worker.assigned) == 1:
                worker.allow(characters=None)
                await worker.crash()
    assert audio == b"".join(map(tone, "Hello."))
    assert len(worker.assigned) > 1


async def test_speech_that_nobody_can_go_on_with_breaks_the_connection(house: House, worker: FakeWorker) -> None:
    worker.allow(characters=1)
    body = {"model": "standin", "voice": "slt", "input": "Hello.", "response_format": "pcm"}
    with pytest.raises(httpx.RemoteProtocolError):
        async with house.http.stream("POST", SPEECH, json=body) as answer:
            async for _ in answer.aiter_bytes():
                worker.failure = EngineFailed("the engine is gone")
                await worker.crash()


async def test_events_that_nobody_can_go_on_with_end_with_an_error(house: House, worker: FakeWorker) -> None:
    worker.allow(characters=1)
    body = {"model": "standin", "voice": "slt", "input": "Hello.", "response_format": "pcm", "stream_format": "sse"}
    async with house.http.stream("POST", SPEECH, json=body) as answer:
        text = ""
        async for piece in answer.aiter_text():
            text += piece
            worker.failure = EngineFailed("the engine is gone")
            await worker.crash()
    last = json.loads(text.split("\n\n")[-2].removeprefix("data: "))
    assert last["type"] == "error"
    assert last["error"]["code"] == "speech_failed"
