"""Narrators and listeners at one real worker: its server and heartbeat, a real Valkey, a scripted engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from app.errors import Overloaded
from app.fleet.registry import Registry
from app.platform.settings import Settings
from app.realtime.background import open_background_speech
from app.speech.protocol import AudioFrame, Done, Eos, Text
from app.speech.voices import Voice
from tests.support.deadlines import HANG_S
from tests.support.fakes import FakeEngine
from tests.unit.workers.test_server import serving
from workers.heartbeat import Heartbeat
from workers.server import WorkerServer

pytestmark = pytest.mark.anyio

WREN = Voice(id="wren", name="wren", model="fake")
SAMPLES_PER_CHARACTER = 32


@asynccontextmanager
async def beating(server: WorkerServer, registry: Registry) -> AsyncIterator[None]:
    """The worker registered, its leases renewed."""
    heartbeat = Heartbeat(registry, server.describe, lambda: server.leases, lambda voice: None, interval_s=0.1)
    beating = asyncio.create_task(heartbeat.run())
    async with asyncio.timeout(HANG_S):
        while not await registry.snapshot():
            await asyncio.sleep(0.01)
    try:
        yield
    finally:
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)


async def test_a_narration_gives_its_place_to_a_listener_and_goes_on_when_he_has_left(
    settings: Settings, registry: Registry, tmp_path: Path
) -> None:
    engine = FakeEngine(frames_per_char=20)
    async with (
        serving(
            engine, tmp_path, capacity=1, epoch=await registry.join("w1"), fleet_secret=settings.fleet_secret
        ) as server,
        beating(server, registry),
        open_background_speech(settings) as speaker,
        speaker.narrator() as narrator,
    ):
        first = await narrator.utter(WREN, "Chapter one.", seed=1)
        assert len(first.samples) == 20 * len("Chapter one.") * SAMPLES_PER_CHARACTER
        engine.pause()
        narrating = asyncio.create_task(narrator.utter(WREN, "It was a dark night.", seed=2))
        while len(engine.utterances) < 2:
            await asyncio.sleep(0.01)

        async with speaker.upstream.open(WREN) as listener:
            assert not engine.running
            engine.resume()
            await listener.send(Text(session="s", text="Hello."))
            await listener.send(Eos(session="s"))
            events = [event async for event in listener]
            assert isinstance(events[0], AudioFrame)
            assert isinstance(events[-1], Done)
            with pytest.raises(Overloaded):
                async with speaker.session(WREN):
                    pass

        spoken = await narrating
        assert len(spoken.samples) == 20 * len("It was a dark night.") * SAMPLES_PER_CHARACTER
        requests = [(one.text, one.seed, one.priority) for one in engine.utterances]
        assert requests[:3] == [("Chapter one.", 1, 2), ("It was a dark night.", 2, 2), ("Hello.", None, 0)]
        assert set(requests[3:]) == {("It was a dark night.", 2, 2)}
