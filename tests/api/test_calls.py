"""What existing clients send by default, word for word; their sockets are in the dialects' own tests."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.platform.settings import OpenAISettings
from app.speech.choices import Scope
from tests.api.conftest import House, OpenHouse
from tests.api.test_say import speak as say
from tests.support.fake_worker import FakeWorker
from tests.support.session_client import SPEECH, spoken

pytestmark = pytest.mark.anyio


async def called(house: House, **body: Any) -> httpx.Response:
    answer = await house.http.post(SPEECH, json=body)
    assert answer.status_code == 200, answer.text
    return answer


async def test_livekits_openai_plugin_gets_audio_in_events(house: House, worker: FakeWorker) -> None:
    answer = await called(
        house,
        model="gpt-4o-mini-tts",
        voice="ash",
        input="Hello there.",
        response_format="mp3",
        stream_format="sse",
        instructions="calm",
    )
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
    assert [events[0]["type"], events[-1]["type"]] == ["speech.audio.delta", "speech.audio.done"]
    assert answer.headers["x-carillon-ignored"] == "instructions"
    assert answer.headers["x-request-id"]


async def test_pipecats_openai_service_gets_pcm_of_24_khz(house: House, worker: FakeWorker) -> None:
    answer = await called(house, model="gpt-4o-mini-tts", voice="alloy", input="Hello.", response_format="pcm")
    assert answer.content == spoken("Hello.")


async def test_open_webui_lists_without_a_key_where_that_is_open_and_adds_what_its_admin_likes(
    open_house: OpenHouse,
) -> None:
    async with open_house(openai=OpenAISettings(open_listings=True)) as house, house.worker():
        for path in ("/v1/audio/voices", "/v1/audio/models"):
            assert (await house.http.get(path, headers={"Authorization": ""})).status_code == 200
        answer = await called(house, input="Hi.", voice="alloy", model="tts-1", response_format="wav", x=1)
    assert answer.content.startswith(b"RIFF")
    assert answer.headers["x-carillon-ignored"] == "x"


async def test_sillytavern_anythingllm_and_librechat_get_mp3(house: House, worker: FakeWorker) -> None:
    answer = await called(house, model="tts-1", voice="alloy", input="Hi.", response_format="mp3", speed=1, backend="x")
    assert answer.headers["content-type"] == "audio/mpeg"
    assert answer.headers["x-carillon-ignored"] == "backend"


async def test_home_assistants_probe_and_its_calls_are_answered(house: House, worker: FakeWorker) -> None:
    probe = await called(house, model="tts-1", voice="alloy", input=".")
    assert probe.content
    for format in ("mp3", "opus"):
        answer = await called(
            house,
            model="tts-1",
            voice="alloy",
            input="The door is open.",
            response_format=format,
            speed=1.1,
            instructions="calm",
            chunk_size=50,
        )
        assert answer.headers["x-carillon-ignored"] == "instructions, chunk_size"


async def test_wyoming_openai_finds_it_ready_and_asks_for_three_at_once(house: House, worker: FakeWorker) -> None:
    for path in ("/v1/readyz", "/health"):
        assert (await house.http.get(path)).status_code == 200
    body = {"model": "tts-1", "voice": "alloy", "input": "Hi.", "response_format": "wav"}
    answers = await asyncio.gather(*(called(house, **body) for _ in range(3)))
    assert all(answer.content.startswith(b"RIFF") for answer in answers)


async def test_what_others_send_besides_is_ignored_and_named_and_null_is_the_default(
    house: House, worker: FakeWorker
) -> None:
    answer = await called(house, voice="alloy", input="Hi.", stream=True, lang_code="a", response_format=None)
    assert answer.headers["content-type"] == "audio/mpeg"
    assert set(answer.headers["x-carillon-ignored"].split(", ")) == {"stream", "lang_code"}


async def test_say_knows_openais_name_of_the_model(house: House, tmp_path: Path) -> None:
    async with house.worker():
        ledger, _, _ = await say(house, tmp_path / "out.wav", "Hi.", model="tts-1")
    assert ledger.samples


async def test_a_job_that_is_asked_for_twice_with_one_key_is_one_job(house: House, worker: FakeWorker) -> None:
    async with house.holder_of(Scope.CLONE) as http:
        headers = {"Idempotency-Key": "4f2c"}
        jobs = [await http.post("/v1/voices/slt/polish", json={}, headers=headers) for _ in range(2)]
        assert [job.status_code for job in jobs] == [202, 202]
        assert jobs[0].json()["id"] == jobs[1].json()["id"]
        assert len((await http.get("/v1/clones")).json()["data"]) == 1
