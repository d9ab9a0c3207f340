"""A whole agent of LiveKit: a chat model by its openai plugin, and our voices by each of three plugins' base URL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest
from livekit import rtc
from livekit.agents import Agent, AgentSession, tts
from livekit.agents.voice.io import AudioOutput, AudioOutputCapabilities
from livekit.plugins import cartesia, elevenlabs, openai

from tests.clients.chat import GREETING, scripted_chat
from tests.clients.fleet import HANG_S, STORY, Fleet

pytestmark = pytest.mark.anyio

Make = Callable[[Fleet, aiohttp.ClientSession], tts.TTS]


def by_openai(fleet: Fleet, _: aiohttp.ClientSession) -> tts.TTS:
    return openai.TTS(api_key=fleet.key, base_url=f"{fleet.url}/v1")


def by_elevenlabs(fleet: Fleet, http: aiohttp.ClientSession) -> tts.TTS:
    return elevenlabs.TTS(api_key=fleet.key, base_url=f"{fleet.url}/v1", http_session=http)


def by_cartesia(fleet: Fleet, http: aiohttp.ClientSession) -> tts.TTS:
    return cartesia.TTS(api_key=fleet.key, base_url=fleet.url, http_session=http)


EVERY = pytest.mark.parametrize("make", [by_openai, by_elevenlabs, by_cartesia])


class Speaker(AudioOutput):
    """Plays everything at once."""

    def __init__(self) -> None:
        super().__init__(label="speaker", capabilities=AudioOutputCapabilities(pause=False), sample_rate=24_000)
        self.heard_s = 0.0
        self.plays = asyncio.Event()
        self._segment_s = 0.0

    async def capture_frame(self, frame: rtc.AudioFrame) -> None:
        await super().capture_frame(frame)
        self.heard_s += frame.duration
        self._segment_s += frame.duration
        self.plays.set()

    def flush(self) -> None:
        super().flush()
        self._finished(interrupted=False)

    def clear_buffer(self) -> None:
        self._finished(interrupted=True)

    def _finished(self, *, interrupted: bool) -> None:
        if self._segment_s:
            self.on_playback_finished(playback_position=self._segment_s, interrupted=interrupted)
            self._segment_s = 0.0


@asynccontextmanager
async def agent(make: Make, fleet: Fleet, *answers: str) -> AsyncIterator[tuple[AgentSession, Speaker]]:
    """One that has been started, is written to rather than spoken to, and answers with `answers`."""
    async with aiohttp.ClientSession() as http, scripted_chat(*answers) as chat:
        voice, speaker = make(fleet, http), Speaker()
        model = openai.LLM(model="scripted", base_url=chat, api_key="none")
        session = AgentSession(llm=model, tts=voice, vad=None, turn_handling={"turn_detection": "manual"})
        session.output.audio = speaker
        await session.start(Agent(instructions="Answer."), record=False)
        yield session, speaker
        await session.aclose()
        await voice.aclose()


@EVERY
async def test_an_agent_speaks_its_answers(make: Make, fleet: Fleet) -> None:
    async with agent(make, fleet, GREETING) as (session, speaker):
        async with asyncio.timeout(HANG_S):
            await session.run(user_input="Hello.")
        first_s = speaker.heard_s
        async with asyncio.timeout(HANG_S):
            await session.run(user_input="And again?")
        said = [item.text_content for item in session.history.items if getattr(item, "role", "") == "assistant"]
    assert 0.5 < first_s < speaker.heard_s
    assert len(said) == 2


@EVERY
async def test_an_agent_that_is_interrupted_ends_the_request_at_the_engine(make: Make, fleet: Fleet) -> None:
    """By the next turn: Cartesia's plugin closes its socket when another is wanted. ElevenLabs' says nothing of it once
    all of an answer was sent, so the model still writes here."""
    async with agent(make, fleet, STORY, "Yes, please?") as (session, speaker):
        session.generate_reply(user_input="Tell me a story.")
        async with asyncio.timeout(HANG_S):
            await speaker.plays.wait()
            async with fleet.interrupted():
                await session.interrupt()
                await session.run(user_input="And now?")
