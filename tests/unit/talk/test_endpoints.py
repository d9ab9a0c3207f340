"""OpenAI-compatible ears and minds, as they answer and as they fail."""

from __future__ import annotations

import io
import json
import wave
from collections.abc import Callable

import httpx
import numpy as np
import pytest
from pydantic import SecretStr

from app.errors import CarillonError
from app.platform.settings import TalkSettings
from app.talk.dialogue import Said
from app.talk.ears import BundledEars, EndpointEars, ears_of
from app.talk.host import ScriptedHost
from app.talk.mind import ChatEndpoint, mind_of

pytestmark = pytest.mark.anyio

SETTINGS = TalkSettings(
    transcription_url="http://ears.example/v1/audio/transcriptions",
    transcription_key=SecretStr("ear-key"),
    transcription_model="whisper",
    chat_url="http://mind.example/v1/chat/completions",
    chat_key=SecretStr("mind-key"),
    chat_model="llama",
    instructions="Be brief.",
)
STREAM = "".join(
    f"data: {json.dumps(chunk)}\n\n"
    for chunk in (
        {"choices": [{"delta": {"role": "assistant"}}]},
        {"choices": [{"delta": {"content": "Good "}}]},
        {"choices": [{"delta": {"content": "day."}}]},
        {"choices": [{"delta": {}, "finish_reason": "stop"}]},
        {"choices": [], "usage": {"total_tokens": 3}},
    )
)
HELLO = (Said("user", "Hello."),)

Handler = Callable[[httpx.Request], httpx.Response]


def mind(handler: Handler) -> ChatEndpoint:
    return ChatEndpoint(SETTINGS, transport=httpx.MockTransport(handler))


def ears(handler: Handler) -> EndpointEars:
    return EndpointEars(SETTINGS, transport=httpx.MockTransport(handler))


def test_without_an_address_what_is_bundled_hears_and_answers() -> None:
    assert isinstance(ears_of(TalkSettings()), BundledEars)
    assert isinstance(mind_of(TalkSettings()), ScriptedHost)
    assert isinstance(ears_of(SETTINGS), EndpointEars)
    assert isinstance(mind_of(SETTINGS), ChatEndpoint)


async def test_a_chat_is_streamed_piece_by_piece() -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, text=STREAM + "data: [DONE]\n\n")

    assert [piece async for piece in mind(answer).answer(HELLO)] == ["Good ", "day."]
    [request] = asked
    assert request.headers["authorization"] == "Bearer mind-key"
    assert json.loads(request.content) == {
        "model": "llama",
        "stream": True,
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello."}],
    }


@pytest.mark.parametrize(
    "body", ["data: no json\n\n", 'data: {"choices": 1}\n\n', "data: []\n\n", 'data: {"x": 1}\n\n']
)
async def test_a_chat_that_is_none_is_an_error_in_words(body: str) -> None:
    with pytest.raises(CarillonError, match="CARILLON_TALK__CHAT_URL"):
        [piece async for piece in mind(lambda _: httpx.Response(200, text=body)).answer(HELLO)]


async def test_a_chat_that_refuses_is_told_with_its_status() -> None:
    with pytest.raises(CarillonError, match="HTTP 401"):
        [piece async for piece in mind(lambda _: httpx.Response(401)).answer(HELLO)]


async def test_a_transcription_is_asked_for_as_a_wav() -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, json={"text": " Hello. "})

    samples = np.arange(1600, dtype=np.int16)
    assert await ears(answer).hear(samples) == "Hello."
    body = asked[0].content
    with wave.open(io.BytesIO(body[body.index(b"RIFF") :])) as wav:
        assert (wav.getframerate(), wav.getnchannels(), wav.getnframes()) == (16_000, 1, 1600)
        assert wav.readframes(1600) == samples.tobytes()
    assert asked[0].headers["authorization"] == "Bearer ear-key"
    assert b"whisper" in body


@pytest.mark.parametrize("response", [httpx.Response(500), httpx.Response(200, text="?"), httpx.Response(200, json={})])
async def test_ears_that_fail_are_an_error_in_words(response: httpx.Response) -> None:
    with pytest.raises(CarillonError, match="transcription endpoint"):
        await ears(lambda _: response).hear(np.zeros(160, np.int16))
