"""A worker's heartbeat with a real registry."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import pytest
from pydantic import SecretStr

from app.errors import ConfigurationError
from app.fleet.registry import LeaseRecord, Registry, open_redis
from app.fleet.worker import Worker, WorkerState
from app.platform.settings import Settings
from app.speech.voices import ModelCard
from tests.support.deadlines import HANG_S
from tests.support.processes import until_async
from workers.heartbeat import Heartbeat

pytestmark = pytest.mark.anyio

MODEL = ModelCard(
    name="fake", stand_in=True, languages=("en",), voices=("wren",), sample_rate_hz=24_000, tokens_per_s=82.0
)


@dataclass
class Person:
    """Who beats: a worker whose state a test may change."""

    id: str
    epoch: int
    state: WorkerState = WorkerState.ACTIVE

    def describe(self) -> Worker:
        return Worker(
            id=self.id,
            epoch=self.epoch,
            address="ws://nowhere",
            model=MODEL,
            state=self.state,
            capacity=4,
            max_voices=4,
        )


@pytest.fixture
async def registry(valkey: str) -> AsyncIterator[Registry]:
    settings = Settings(redis_url=SecretStr(valkey))
    redis = open_redis(settings)
    await redis.flushdb()
    yield Registry(redis, settings)
    await redis.aclose()


def beating(
    registry: Registry,
    worker: Person,
    interval_s: float = 0.02,
    retire: Callable[[str], None] = lambda voice_id: None,
) -> Heartbeat:
    return Heartbeat(registry, worker.describe, lambda: (), retire, interval_s=interval_s)


async def state_in(registry: Registry, worker_id: str) -> WorkerState | None:
    return next((worker.state for worker in await registry.snapshot() if worker.id == worker_id), None)


async def test_a_worker_is_seen_and_its_changes_follow(registry: Registry) -> None:
    worker = Person("w1", await registry.join("w1"))
    heartbeat = beating(registry, worker, interval_s=3600)
    task = asyncio.create_task(heartbeat.run())
    await until_async(lambda: _is(registry, "w1", WorkerState.ACTIVE))
    worker.state = WorkerState.DRAINING
    heartbeat.hurry()
    await until_async(lambda: _is(registry, "w1", WorkerState.DRAINING))
    task.cancel()


async def test_a_worker_whose_id_was_taken_by_a_later_start_ends(registry: Registry) -> None:
    superseded = Person("w1", await registry.join("w1"))
    await registry.join("w1")
    with pytest.raises(ConfigurationError, match="CARILLON_WORKER_ID"):
        await beating(registry, superseded).run()


async def test_a_deleted_voice_is_returned_once_to_each_worker_also_to_one_that_starts_later(
    registry: Registry,
) -> None:
    early, late = Person("early", await registry.join("early")), Person("late", await registry.join("late"))
    received: list[tuple[str, str]] = []

    async def beat(worker: Person, until: tuple[str, str]) -> asyncio.Task[None]:
        heartbeat = beating(registry, worker, retire=lambda voice_id: received.append((worker.id, voice_id)))
        task = asyncio.create_task(heartbeat.run())
        async with asyncio.timeout(HANG_S):
            while until not in received:
                await asyncio.sleep(0.01)
        return task

    await registry.retire_voice("ada")
    first = await beat(early, ("early", "ada"))
    await registry.retire_voice("bob")
    second = await beat(late, ("late", "bob"))
    async with asyncio.timeout(HANG_S):
        while ("early", "bob") not in received:
            await asyncio.sleep(0.01)
    first.cancel()
    second.cancel()
    assert sorted(received) == [("early", "ada"), ("early", "bob"), ("late", "ada"), ("late", "bob")]


async def test_a_session_that_the_registry_has_lost_is_back_after_two_beats_and_one_that_was_released_is_not(
    registry: Registry,
) -> None:
    worker = Person("w1", await registry.join("w1"))
    speaking = [LeaseRecord("lost"), LeaseRecord("released")]
    heartbeat = Heartbeat(registry, worker.describe, lambda: speaking, lambda _: None, interval_s=3600)
    await registry.beat(worker.describe(), [])
    task = asyncio.create_task(heartbeat.run())
    await until_async(lambda: _beaten(heartbeat))
    assert [worker.inflight for worker in await registry.snapshot()] == [0]
    speaking.remove(LeaseRecord("released"))
    heartbeat.hurry()
    await until_async(lambda: _sessions_in(registry, 1))
    task.cancel()


async def test_an_order_to_drain_is_returned_with_the_next_beat(registry: Registry) -> None:
    worker = Person("w1", await registry.join("w1"))
    received: list[float] = []
    heartbeat = Heartbeat(registry, worker.describe, lambda: (), lambda _: None, interval_s=0.02, drain=received.append)
    task = asyncio.create_task(heartbeat.run())
    await until_async(lambda: _is(registry, "w1", WorkerState.ACTIVE))
    assert received == []
    assert await registry.drain("w1", 30)
    await until_async(lambda: _received(received))
    assert 25 < received[0] <= 30
    task.cancel()


async def test_a_registry_that_is_away_stops_nothing(registry: Registry, valkey: str) -> None:
    settings = Settings(redis_url=SecretStr("redis://127.0.0.1:1"))
    redis = open_redis(settings)
    described = 0

    def describe() -> Worker:
        nonlocal described
        described += 1
        return Person("w1", 1).describe()

    heartbeat = Heartbeat(Registry(redis, settings), describe, lambda: (), lambda _: None, interval_s=0.01)
    task = asyncio.create_task(heartbeat.run())
    async with asyncio.timeout(HANG_S):
        while described < 3:
            await asyncio.sleep(0.01)
    assert not task.done()
    task.cancel()
    await redis.aclose()


async def _is(registry: Registry, worker_id: str, state: WorkerState) -> bool:
    return await state_in(registry, worker_id) is state


async def _sessions_in(registry: Registry, count: int) -> bool:
    return sum(worker.inflight for worker in await registry.snapshot()) == count


async def _beaten(heartbeat: Heartbeat) -> bool:
    return bool(heartbeat._unknown)


async def _received(received: list[float]) -> bool:
    return bool(received)
