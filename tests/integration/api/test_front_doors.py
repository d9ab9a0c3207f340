"""Several front doors before one fleet, through their `SessionRouter`s: a real Valkey, fake workers of two models."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from redis.asyncio import Redis

from app.errors import Overloaded, UnknownModel
from app.fleet.registry import Registry, open_redis
from app.fleet.view import FleetView, open_fleet
from app.platform.settings import SessionSettings, Settings
from app.realtime.router import SessionRouter
from app.speech.voices import Voice
from tests.support.fake_worker import STAND_IN, FakeWorker, running_worker
from tests.support.real_services import WANTED
from tests.support.registries import clone

pytestmark = pytest.mark.anyio

ORPHEUS = STAND_IN.model_copy(update={"name": "orpheus"})


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"fleet_refresh_s": 0.02, "session": SessionSettings(queue_timeout_s=0.2)})


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


class Houses:
    """Front doors that know all `workers`; what is opened ends with `stack`."""

    def __init__(self, registry: Registry, settings: Settings, stack: AsyncExitStack) -> None:
        self._registry = registry
        self._settings = settings
        self._stack = stack
        self.fleets: list[FleetView] = []

    async def worker(self, id: str, **how: object) -> FakeWorker:
        running = running_worker(self._registry, self._settings, id=id, **how)  # type: ignore[arg-type]
        return await self._stack.enter_async_context(running)

    async def front_door(self) -> SessionRouter:
        fleet = await self._stack.enter_async_context(open_fleet(self._registry, self._settings))
        upstream = SessionRouter(fleet, self._registry, self._settings)
        self._stack.push_async_callback(upstream.aclose)
        self.fleets.append(fleet)
        return upstream


@pytest.fixture
def houses(registry: Registry, settings: Settings, stack: AsyncExitStack) -> Houses:
    return Houses(registry, settings, stack)


async def place_of(door: SessionRouter, voice: Voice) -> str:
    async with door.open(voice) as session:
        return session.worker.id


async def test_each_voice_lands_on_one_worker_of_its_model_whichever_front_door_is_asked(houses: Houses) -> None:
    for number in range(3):
        await houses.worker(f"s{number}", capacity=20, max_voices=20)
        await houses.worker(f"o{number}", card=ORPHEUS, capacity=20, max_voices=20)
    left, right = await houses.front_door(), await houses.front_door()
    homes: dict[tuple[str, str], str] = {}
    for number in range(12):
        for model in ("standin", "orpheus"):
            voice = clone(f"v{number}", model=model)
            first, second = (left, right) if number % 2 else (right, left)
            homes[model, voice.id] = await place_of(first, voice)
            assert await place_of(second, voice) == homes[model, voice.id]
    assert all(home.startswith(model[0]) for (model, _), home in homes.items())
    assert len(set(homes.values())) > 3


async def test_a_model_that_nobody_serves_is_refused_with_those_that_are(houses: Houses) -> None:
    await houses.worker("s")
    await houses.worker("o", card=ORPHEUS)
    door = await houses.front_door()
    with pytest.raises(UnknownModel, match=r"no worker serves model 'welsh' now; served are: orpheus, standin"):
        await place_of(door, clone("v", model="welsh"))


async def commands(redis: Redis) -> dict[str, int]:
    """How often each command was called from outside; what a script does within is not a round trip."""
    stats = await redis.info("commandstats")
    return {name.removeprefix("cmdstat_"): entry["calls"] for name, entry in stats.items()}


@pytest.mark.skipif(WANTED, reason="over TLS a heartbeat may still be on its way when the counting begins")
async def test_a_start_and_its_end_are_two_round_trips_to_the_registry(
    redis: Redis, settings: Settings, stack: AsyncExitStack
) -> None:
    quiet = settings.model_copy(update={"fleet_refresh_s": 3600.0, "heartbeat_s": 3600.0, "worker_ttl_s": 3600.0})
    registry = Registry(redis, quiet)
    houses = Houses(registry, quiet, stack)
    await houses.worker("w1", max_voices=8)
    door = await houses.front_door()
    await place_of(door, clone("v"))  # the first looks and heartbeats are over then
    before = await commands(redis)
    for number in range(5):
        await place_of(door, clone(f"v{number}"))
    after = await commands(redis)
    assert after["evalsha"] - before["evalsha"] == 2 * 5
    assert not {name for name in ("eval", "script|load", "multi", "subscribe") if after.get(name) != before.get(name)}


async def test_front_doors_that_start_sessions_at_once_put_no_worker_over_its_bound(
    registry: Registry, settings: Settings, stack: AsyncExitStack
) -> None:
    patient = settings.model_copy(update={"session": SessionSettings(queue_timeout_s=60)})
    houses = Houses(registry, patient, stack)
    workers = [await houses.worker(f"w{number}", capacity=8, max_voices=8) for number in range(3)]
    doors = [await houses.front_door() for _ in range(4)]
    voice = clone("popular")

    async def talk(door: SessionRouter, started: asyncio.Semaphore, end: asyncio.Event) -> None:
        async with door.open(voice):
            started.release()
            await end.wait()

    started, end = asyncio.Semaphore(0), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for number in range(12):
            group.create_task(talk(doors[number % 4], started, end))
        for _ in range(12):
            await started.acquire()
        sessions = [len(worker.sessions) for worker in workers]
        end.set()
    # Twelve sessions on three equal workers: 1.25 times their share is five.
    assert sum(sessions) == 12
    assert max(sessions) <= 5


async def test_a_start_in_the_second_after_a_flush_waits_for_the_workers_to_be_back(
    houses: Houses, redis: Redis
) -> None:
    worker = await houses.worker("w1", capacity=2)
    door = await houses.front_door()
    async with door.open(clone("a")):
        await redis.flushdb()
        await asyncio.gather(*(fleet.refresh() for fleet in houses.fleets))
        assert [card.name for card in door.models] == ["standin"]
        async with door.open(clone("b")) as session:
            assert session.worker.id == "w1"
            await worker.until_leases(2)
            with pytest.raises(Overloaded, match="all 2 places"):
                await place_of(door, clone("a"))


async def test_a_registry_that_is_away_refuses_starts_as_if_there_were_no_room_and_only_after_a_while(
    houses: Houses, settings: Settings, stack: AsyncExitStack
) -> None:
    await houses.worker("w1")
    door = await houses.front_door()
    nowhere = Settings.model_validate({"redis_url": "redis://127.0.0.1:1/0"})
    away = await stack.enter_async_context(open_redis(nowhere))
    (fleet,) = houses.fleets
    fleet._registry = Registry(away, settings)
    began = asyncio.get_running_loop().time()
    with pytest.raises(Overloaded, match="registry does not answer") as refusal:
        await place_of(door, clone("a"))
    assert refusal.value.retry_after_s
    assert asyncio.get_running_loop().time() - began >= settings.session.queue_timeout_s
