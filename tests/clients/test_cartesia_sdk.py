"""Cartesia's own SDK."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from cartesia import AsyncCartesia, AuthenticationError, Cartesia, NotFoundError

from tests.clients.fleet import STORY, Fleet

pytestmark = pytest.mark.anyio

RAW: Any = {"container": "raw", "encoding": "pcm_s16le", "sample_rate": 24_000}
BYTES_PER_S = 48_000


@pytest.fixture
def client(fleet: Fleet) -> Cartesia:
    return Cartesia(api_key=fleet.key, base_url=fleet.url)


@pytest.fixture
def connected(fleet: Fleet) -> AsyncCartesia:
    return AsyncCartesia(api_key=fleet.key, base_url=fleet.url, websocket_base_url=fleet.ws_url)


def ask(fleet: Fleet, **more: Any) -> dict[str, Any]:
    return {"model_id": "sonic-3", "voice": {"mode": "id", "id": fleet.voice}, "output_format": RAW, **more}


async def received(context: Any) -> tuple[bytes, list[Any]]:
    """The audio of a context, and its other events."""
    audio, others = b"", []
    async with asyncio.timeout(120):
        async for event in context.receive():
            if event.type == "chunk":
                audio += event.audio
            else:
                others.append(event)
    return audio, others


def test_speaks(client: Cartesia, fleet: Fleet) -> None:
    answer = client.tts.generate(**ask(fleet, transcript="Hello there."))
    assert len(answer.read()) > 0.3 * BYTES_PER_S


@pytest.mark.parametrize(
    ("output_format", "head"),
    [
        ({"container": "wav", "encoding": "pcm_s16le", "sample_rate": 16_000}, b"RIFF"),
        ({"container": "mp3", "bit_rate": 128_000, "sample_rate": 44_100}, b"\xff\xfb"),
    ],
)
def test_honours_the_output_format(client: Cartesia, fleet: Fleet, output_format: Any, head: bytes) -> None:
    answer = client.tts.generate(**ask(fleet, transcript="Hello.", output_format=output_format))
    assert answer.read().startswith(head)


def test_tells_when_words_are_spoken_in_events(client: Cartesia, fleet: Fleet) -> None:
    events = list(client.tts.generate_sse(**ask(fleet, transcript="Good morning. How are you?", add_timestamps=True)))
    assert [event.type for event in events][-1] == "done"
    words = [word for event in events if event.type == "timestamps" for word in event.word_timestamps.words]
    assert words == ["Good", "morning.", "How", "are", "you?"]
    assert sum(len(event.audio) for event in events if event.type == "chunk") > 0.5 * BYTES_PER_S


async def test_text_can_be_streamed_in(connected: AsyncCartesia, fleet: Fleet) -> None:
    async with connected.tts.websocket_connect() as socket:
        context = socket.context(**ask(fleet))
        for word in ["Good", "morning.", "We", "speak."]:
            await context.push(word + " ")
        await context.no_more_inputs()
        audio, others = await received(context)
    assert len(audio) > 0.5 * BYTES_PER_S
    assert [event.type for event in others] == ["done"]


async def test_the_sdk_opens_its_socket_by_the_base_url_alone(fleet: Fleet, tls_url: str) -> None:
    client = AsyncCartesia(api_key=fleet.key, base_url=tls_url)
    async with client.tts.websocket_connect() as socket:
        context = socket.context(**ask(fleet))
        await context.push("Hello there.", continue_=False)
        audio, _ = await received(context)
    assert len(audio) > 0.3 * BYTES_PER_S


async def test_several_contexts_at_once(connected: AsyncCartesia, fleet: Fleet) -> None:
    async with connected.tts.websocket_connect() as socket:
        contexts = [socket.context(**ask(fleet)) for _ in range(3)]
        for number, context in enumerate(contexts):
            await context.push(f"Number {number} of three.", continue_=False)
        heard = await asyncio.gather(*map(received, contexts))
    assert min(len(audio) for audio, _ in heard) > 0.3 * BYTES_PER_S


async def test_a_flush_is_answered(connected: AsyncCartesia, fleet: Fleet) -> None:
    async with connected.tts.websocket_connect() as socket:
        context = socket.context(**ask(fleet))
        await context.push("No full stop", flush=True)
        await context.push(" and more.", continue_=False)
        _, others = await received(context)
    assert [(event.type, getattr(event, "flush_id", None)) for event in others] == [("flush_done", 1), ("done", None)]


async def test_tells_when_words_are_spoken(connected: AsyncCartesia, fleet: Fleet) -> None:
    async with connected.tts.websocket_connect() as socket:
        context = socket.context(**ask(fleet, add_timestamps=True))
        await context.push("Good morning. It costs $3.50 today.", continue_=False)
        audio, others = await received(context)
    told = [event.word_timestamps for event in others if event.type == "timestamps"]
    assert [word for it in told for word in it.words] == ["Good", "morning.", "It", "costs", "$3.50", "today."]
    starts = [start for it in told for start in it.start]
    assert starts == sorted(starts)
    assert starts[-1] < len(audio) / BYTES_PER_S


async def test_a_context_without_a_word_is_done(connected: AsyncCartesia, fleet: Fleet) -> None:
    async with connected.tts.websocket_connect() as socket:
        context = socket.context(**ask(fleet))
        await context.push("", continue_=False)
        assert [event.type for event in (await received(context))[1]] == ["done"]


async def test_cancelling_ends_the_request_at_the_engine(connected: AsyncCartesia, fleet: Fleet) -> None:
    async with connected.tts.websocket_connect() as socket:
        context = socket.context(**ask(fleet))
        await context.push(STORY)
        await anext(context.receive())
        async with fleet.interrupted():
            await context.cancel()


def test_lists_voices(client: Cartesia, fleet: Fleet) -> None:
    assert fleet.voice in [voice.id for voice in client.voices.list(limit=1)]
    assert client.voices.get(fleet.voice).name == fleet.voice


def test_a_wrong_key_is_refused(fleet: Fleet) -> None:
    client = Cartesia(api_key="wrong", base_url=fleet.url)
    with pytest.raises(AuthenticationError):
        client.tts.generate(**ask(fleet, transcript="Hello."))


def test_a_wrong_voice_is_refused(client: Cartesia, fleet: Fleet) -> None:
    with pytest.raises(NotFoundError) as refused:
        client.tts.generate(**ask(fleet, transcript="Hello.", voice={"mode": "id", "id": "nobody"}))
    assert refused.value.body["error_code"] == "unknown_voice"  # type: ignore[index]


async def test_a_wrong_voice_on_the_socket_harms_no_other(connected: AsyncCartesia, fleet: Fleet) -> None:
    async with connected.tts.websocket_connect() as socket:
        wrong, right = socket.context(**ask(fleet)), socket.context(**ask(fleet))
        await wrong.push("Hello.", voice={"mode": "id", "id": "nobody"}, continue_=False)
        await right.push("Hello there.", continue_=False)
        _, [error] = await received(wrong)
        audio, _ = await received(right)
    assert (error.type, error.status_code, error.error_code) == ("error", 404, "unknown_voice")
    assert len(audio) > 0.3 * BYTES_PER_S
