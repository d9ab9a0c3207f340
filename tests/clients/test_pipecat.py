"""Pipecat's services in a pipeline, each pointed here by its address alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
import pytest
from pipecat.frames.frames import (
    ErrorFrame,
    Frame,
    InterruptionFrame,
    LLMContextFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
    TTSAudioRawFrame,
    TTSTextFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.cartesia.tts import CartesiaHttpTTSService, CartesiaTTSService
from pipecat.services.elevenlabs.tts import ElevenLabsHttpTTSService, ElevenLabsTTSService
from pipecat.services.openai.llm import OpenAILLMService
from pipecat.services.openai.tts import OpenAITTSService
from pipecat.workers.runner import WorkerRunner

from tests.clients.chat import GREETING, scripted_chat
from tests.clients.fleet import HANG_S, STORY, Fleet

pytestmark = pytest.mark.anyio

RATE_HZ = 24_000

Make = Callable[..., FrameProcessor]
Running = tuple[PipelineWorker, "Heard"]


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def elevenlabs(fleet: Fleet, _: aiohttp.ClientSession, *, key: str = "", voice: str = "") -> FrameProcessor:
    settings = ElevenLabsTTSService.Settings(voice=voice or fleet.voice)
    return ElevenLabsTTSService(api_key=key or fleet.key, url=fleet.ws_url, settings=settings)


def elevenlabs_http(fleet: Fleet, http: aiohttp.ClientSession, *, key: str = "", voice: str = "") -> FrameProcessor:
    settings = ElevenLabsHttpTTSService.Settings(voice=voice or fleet.voice)
    return ElevenLabsHttpTTSService(
        api_key=key or fleet.key, base_url=fleet.url, aiohttp_session=http, settings=settings
    )


def cartesia(fleet: Fleet, _: aiohttp.ClientSession, *, key: str = "", voice: str = "") -> FrameProcessor:
    settings = CartesiaTTSService.Settings(voice=voice or fleet.voice)
    return CartesiaTTSService(api_key=key or fleet.key, url=f"{fleet.ws_url}/tts/websocket", settings=settings)


def cartesia_http(fleet: Fleet, http: aiohttp.ClientSession, *, key: str = "", voice: str = "") -> FrameProcessor:
    settings = CartesiaHttpTTSService.Settings(voice=voice or fleet.voice)
    return CartesiaHttpTTSService(api_key=key or fleet.key, base_url=fleet.url, aiohttp_session=http, settings=settings)


def openai(fleet: Fleet, _: aiohttp.ClientSession, *, key: str = "", voice: str = "") -> FrameProcessor:
    settings = OpenAITTSService.Settings(voice=voice or "alloy")
    return OpenAITTSService(api_key=key or fleet.key, base_url=f"{fleet.url}/v1", settings=settings)


EVERY = pytest.mark.parametrize("make", [openai, elevenlabs, elevenlabs_http, cartesia, cartesia_http])
STREAMED = pytest.mark.parametrize("make", [openai, elevenlabs, elevenlabs_http, cartesia])
SOCKETS = pytest.mark.parametrize("make", [elevenlabs, cartesia])
TIMED = pytest.mark.parametrize("make", [elevenlabs, elevenlabs_http, cartesia])


@dataclass
class Heard:
    """What came out of a pipeline."""

    frames: list[Frame] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def until(self, happened: Callable[[], object]) -> None:
        """Not until a `TTSStoppedFrame`: some services push one when no audio has come for 3 s."""
        try:
            async with asyncio.timeout(HANG_S):
                while not happened():
                    self.news.clear()
                    await self.news.wait()
        except TimeoutError:
            raise AssertionError(f"{self.audio_s} s, {self.words!r}, {self.errors}") from None

    @property
    def audio_s(self) -> float:
        return sum(len(it.audio) for it in self.frames if isinstance(it, TTSAudioRawFrame)) / 2 / RATE_HZ

    @property
    def errors(self) -> list[ErrorFrame]:
        """Without the complaint of a service that no audio came within 3 s: a busy machine may need longer."""
        return [it for it in self.frames if isinstance(it, ErrorFrame) and "no audio" not in it.error]

    @property
    def words(self) -> str:
        return " ".join(" ".join(it.text for it in self.frames if isinstance(it, TTSTextFrame)).split())


class Sink(FrameProcessor):
    """Notes what is pushed into it."""

    def __init__(self, heard: Heard) -> None:
        super().__init__()
        self._heard = heard

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        self._heard.frames.append(frame)
        self._heard.news.set()
        await self.push_frame(frame, direction)


class Source(Sink):
    """Notes what comes back up: errors."""


@asynccontextmanager
async def pipeline(*services: FrameProcessor) -> AsyncIterator[Running]:
    """A running pipeline with services in it."""
    heard, started = Heard(), asyncio.Event()
    worker = PipelineWorker(
        Pipeline([Source(heard), *services, Sink(heard)]),
        cancel_on_idle_timeout=False,
        enable_rtvi=False,
        params=PipelineParams(audio_out_sample_rate=RATE_HZ),
    )

    @worker.event_handler("on_pipeline_started")
    async def _(*_: object) -> None:
        started.set()

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    running = asyncio.create_task(runner.run())
    async with asyncio.timeout(HANG_S):
        await started.wait()
    try:
        yield worker, heard
    finally:
        await worker.cancel()
        await asyncio.wait_for(running, HANG_S)


async def answer(worker: PipelineWorker, *pieces: str, more: bool = False) -> None:
    """What an LLM's answer is in a pipeline."""
    await worker.queue_frame(LLMFullResponseStartFrame())
    for piece in pieces:
        await worker.queue_frame(LLMTextFrame(piece))
    if not more:
        await worker.queue_frame(LLMFullResponseEndFrame())


WORDS = "Good morning, my friend. We speak."


@STREAMED
async def test_speaks_an_answer_as_it_comes(make: Make, fleet: Fleet, http: aiohttp.ClientSession) -> None:
    """A whole bot: what the user said, a chat model, and our voice."""
    async with scripted_chat(GREETING) as chat:
        model = OpenAILLMService(api_key="none", base_url=chat, settings=OpenAILLMService.Settings(model="scripted"))
        async with pipeline(model, make(fleet, http)) as (worker, heard):
            said = LLMContext([{"role": "user", "content": "Hello."}])
            await worker.queue_frame(LLMContextFrame(said))
            await heard.until(lambda: heard.audio_s > 0.5)
    assert not heard.errors


async def test_cartesia_over_http_speaks(fleet: Fleet, http: aiohttp.ClientSession) -> None:
    """Its service takes the answer as a whole, and complains after 3 s, in which a laptop makes a short one."""
    async with pipeline(cartesia_http(fleet, http)) as (worker, heard):
        await answer(worker, "Good morning.")
        await heard.until(lambda: heard.audio_s > 0.3)


@TIMED
async def test_hears_the_words_that_were_spoken(make: Make, fleet: Fleet, http: aiohttp.ClientSession) -> None:
    async with pipeline(make(fleet, http)) as (worker, heard):
        await answer(worker, WORDS)
        await heard.until(lambda: heard.words == WORDS)


@SOCKETS
async def test_turns_follow_each_other(make: Make, fleet: Fleet, http: aiohttp.ClientSession) -> None:
    async with pipeline(make(fleet, http)) as (worker, heard):
        await answer(worker, "The first turn.")
        await heard.until(lambda: heard.words == "The first turn.")
        await answer(worker, "And the second.")
        await heard.until(lambda: heard.words == "The first turn. And the second.")


@SOCKETS
async def test_an_interruption_ends_the_request_at_the_engine(
    make: Make, fleet: Fleet, http: aiohttp.ClientSession
) -> None:
    async with pipeline(make(fleet, http)) as (worker, heard):
        await answer(worker, STORY)
        await heard.until(lambda: heard.audio_s)
        async with fleet.interrupted():
            await worker.queue_frame(InterruptionFrame())
        before = heard.audio_s
        await answer(worker, "Yes, please?")
        await heard.until(lambda: heard.audio_s > before)


@EVERY
async def test_a_wrong_key_is_an_error_frame(make: Make, fleet: Fleet, http: aiohttp.ClientSession) -> None:
    async with pipeline(make(fleet, http, key="wrong")) as (worker, heard):
        await answer(worker, "Hello there.")
        await heard.until(lambda: heard.errors)
    assert heard.audio_s == 0


@SOCKETS
async def test_a_wrong_voice_is_an_error_frame(make: Make, fleet: Fleet, http: aiohttp.ClientSession) -> None:
    async with pipeline(make(fleet, http, voice="nobody")) as (worker, heard):
        await answer(worker, "Hello there.")
        await heard.until(lambda: heard.errors)
    assert heard.audio_s == 0
