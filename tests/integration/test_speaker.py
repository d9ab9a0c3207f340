"""The speaker against a registry, a real connection, and workers that speak tones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from app.core.errors import AdapterUnavailable, EngineFailed, Overloaded
from app.core.models import Voice
from app.infra.registry import Registry, open_redis
from app.infra.settings import Settings
from tests.fake_worker import SAMPLES_PER_CHARACTER, running_worker
from training.speaker import FleetSpeaker, Spoken, open_speaker, speak_each

pytestmark = pytest.mark.anyio

SLT = Voice(id="slt", name="slt", model="standin")
TEXT = "A bell rings."


@pytest.fixture
async def registry(settings: Settings) -> AsyncIterator[Registry]:
    redis = open_redis(settings)
    await redis.flushdb()
    yield Registry(redis, settings)
    await redis.aclose()


class Clock:
    """Time that passes while somebody sleeps, and what happens then."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.sleeps = 0

    def __call__(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        self.sleeps += 1
        await asyncio.sleep(0)


async def test_a_text_comes_back_whole_and_the_place_is_given_back(settings: Settings, registry: Registry) -> None:
    async with running_worker(registry, settings) as worker, open_speaker(settings) as speaker:
        spoken = await speaker.speak(SLT, TEXT)
        assert len(spoken.samples) == len(TEXT) * SAMPLES_PER_CHARACTER
        assert (spoken.complete, spoken.chunks, spoken.sample_rate_hz) == (True, 1, 24_000)
        assert worker.assigned[0].pace == "unpaced"
        await worker.until_leases(0)


async def test_a_failure_that_may_pass_is_tried_again(settings: Settings, registry: Registry) -> None:
    async with running_worker(registry, settings) as worker, open_speaker(settings) as opened:
        clock = Clock()
        worker.failure = EngineFailed("restarting")

        async def recover(seconds: float) -> None:
            worker.failure = None
            await clock.sleep(seconds)

        speaker = FleetSpeaker(opened.upstream, clock=clock, sleep=recover)
        assert len((await speaker.speak(SLT, TEXT)).samples)
        assert len(worker.assigned) == 2


async def test_a_fleet_without_workers_is_overloaded_once_patience_ends(settings: Settings, registry: Registry) -> None:
    clock = Clock()
    async with open_speaker(settings) as opened:
        with pytest.raises(Overloaded, match="within 120 s"):
            await FleetSpeaker(opened.upstream, clock=clock, sleep=clock.sleep).speak(SLT, TEXT)
    assert 110 <= clock.now_s <= 120


async def test_an_adapter_that_cannot_be_loaded_is_told_at_once(settings: Settings, registry: Registry) -> None:
    clock = Clock()
    async with running_worker(registry, settings) as worker, open_speaker(settings) as opened:
        worker.refusal = AdapterUnavailable("it uses DoRA")
        with pytest.raises(AdapterUnavailable):
            await FleetSpeaker(opened.upstream, clock=clock, sleep=clock.sleep).speak(SLT, TEXT)
    assert clock.sleeps == 0


async def test_cancelled_it_hangs_up(settings: Settings, registry: Registry) -> None:
    async with running_worker(registry, settings) as worker, open_speaker(settings) as speaker:
        worker.allow(characters=1)
        speaking = asyncio.create_task(speaker.speak(SLT, TEXT))
        await worker.until_sessions(1)
        speaking.cancel()
        await worker.until_sessions(0)
        await worker.until_leases(0)
        with pytest.raises(asyncio.CancelledError):
            await speaking


async def test_many_lines_are_heard_each_under_its_number(settings: Settings, registry: Registry) -> None:
    heard: dict[int, Spoken] = {}
    async with running_worker(registry, settings, capacity=2), open_speaker(settings) as speaker:
        texts = [f"Line {'ab'[number % 2] * number}." for number in range(6)]
        await speak_each(speaker, [(SLT, text) for text in texts], heard.__setitem__, at_once=2)
    assert [heard[number].text for number in range(6)] == texts
