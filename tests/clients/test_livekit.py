"""LiveKit's agents by their plugins, each pointed here by its base URL alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import aiohttp
import pytest
from livekit.agents import APIStatusError, tts
from livekit.plugins import baseten, cartesia, elevenlabs, openai

from tests.clients.fleet import STORY, Fleet

pytestmark = pytest.mark.anyio

Make = Callable[..., tts.TTS]


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def make_elevenlabs(fleet: Fleet, http: aiohttp.ClientSession, **more: str) -> tts.TTS:
    options = {"api_key": fleet.key, "base_url": f"{fleet.url}/v1", "http_session": http, **more}
    return elevenlabs.TTS(**({"voice_id": more.pop("voice")} if "voice" in more else {}), **_without(options, "voice"))


def make_cartesia(fleet: Fleet, http: aiohttp.ClientSession, **more: str) -> tts.TTS:
    return cartesia.TTS(**{"api_key": fleet.key, "base_url": fleet.url, "http_session": http, **more})


def make_baseten(fleet: Fleet, http: aiohttp.ClientSession, **more: str) -> tts.TTS:
    endpoint = f"{fleet.ws_url}/baseten"
    return baseten.TTS(**{"api_key": fleet.key, "model_endpoint": endpoint, "http_session": http, **more})


def _without(options: dict[str, object], name: str) -> dict[str, object]:
    return {key: value for key, value in options.items() if key != name}


STREAMING = pytest.mark.parametrize("make", [make_elevenlabs, make_cartesia, make_baseten])
TIMED = pytest.mark.parametrize("make", [make_elevenlabs, make_cartesia])


async def heard_s(stream: AsyncIterator[tts.SynthesizedAudio]) -> float:
    return sum([event.frame.duration async for event in stream])


def say(client: tts.TTS, *pieces: str) -> tts.SynthesizeStream:
    stream = client.stream()
    for piece in pieces:
        stream.push_text(piece)
    stream.end_input()
    return stream


async def test_openai_speaks(fleet: Fleet) -> None:
    client = openai.TTS(api_key=fleet.key, base_url=f"{fleet.url}/v1")
    assert await heard_s(client.synthesize("Hello there.")) > 0.3
    await client.aclose()


@TIMED
async def test_speaks_with_the_default_voice(make: Make, fleet: Fleet, http: aiohttp.ClientSession) -> None:
    client = make(fleet, http)
    assert await heard_s(client.synthesize("Hello there.")) > 0.3
    await client.aclose()


@STREAMING
async def test_text_can_be_streamed_in(make: Make, fleet: Fleet, http: aiohttp.ClientSession) -> None:
    client = make(fleet, http)
    words = "Good morning, my friend. It costs $3."
    assert await heard_s(say(client, *(word + " " for word in words.split()))) > 1
    await client.aclose()


@STREAMING
async def test_a_sentence_with_nothing_to_say_harms_nothing(
    make: Make, fleet: Fleet, http: aiohttp.ClientSession
) -> None:
    client = make(fleet, http)
    assert 0 < await heard_s(say(client, "👍")) < 1
    await client.aclose()


@STREAMING
async def test_several_turns_at_once(make: Make, fleet: Fleet, http: aiohttp.ClientSession) -> None:
    client = make(fleet, http)
    heard = await asyncio.gather(*(heard_s(say(client, f"Number {n} of three.")) for n in range(3)))
    assert min(heard) > 0.3
    await client.aclose()


@STREAMING
async def test_an_interruption_ends_the_request_at_the_engine(
    make: Make, fleet: Fleet, http: aiohttp.ClientSession
) -> None:
    """By the next turn: the plugins leave an interrupted socket unread, and close it when they want another."""
    client = make(fleet, http)
    stream = client.stream()
    stream.push_text(STORY)
    await anext(aiter(stream))
    async with fleet.interrupted():
        await stream.aclose()
        assert await heard_s(say(client, "Yes, please?")) > 0.3
    await client.aclose()


@TIMED
async def test_tells_when_words_are_spoken(make: Make, fleet: Fleet, http: aiohttp.ClientSession) -> None:
    client = make(fleet, http)
    words = []
    async for event in say(client, "Good morning, my friend. ", "We speak."):
        words += event.frame.userdata.get("lk.timed_transcripts", [])
    text = " ".join("".join(words).split())
    assert text == "Good morning, my friend. We speak."
    starts = [word.start_time for word in words]
    assert starts == sorted(starts)
    assert starts[-1] > 0.5
    await client.aclose()


async def test_lists_elevenlabs_voices(fleet: Fleet, http: aiohttp.ClientSession) -> None:
    client = make_elevenlabs(fleet, http)
    assert fleet.voice in {voice.id for voice in await client.list_voices()}  # type: ignore[attr-defined]
    await client.aclose()


@STREAMING
async def test_a_wrong_key_is_refused_for_good(make: Make, fleet: Fleet, http: aiohttp.ClientSession) -> None:
    client = make(fleet, http, api_key="wrong")
    with pytest.raises(APIStatusError) as refused:
        await heard_s(say(client, "Hello there."))
    assert (refused.value.status_code, refused.value.retryable) == (401, False)
    await client.aclose()


async def test_a_wrong_voice_is_refused_for_good(fleet: Fleet, http: aiohttp.ClientSession) -> None:
    client = make_elevenlabs(fleet, http, voice="nobody")
    with pytest.raises(APIStatusError) as refused:
        await heard_s(say(client, "Hello there."))
    assert (refused.value.status_code, refused.value.retryable) == (404, False)
    await client.aclose()
