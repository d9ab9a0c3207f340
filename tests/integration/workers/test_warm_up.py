"""A worker's way from its start to its first session, and to its end: a real Valkey, a scripted engine."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path

import pytest

from app.errors import AdapterUnavailable
from app.fleet.placement import candidates
from app.fleet.registry import ROOT, Registry, open_redis
from app.fleet.worker import Worker, WorkerState
from app.platform.settings import Settings
from app.speech.voices import Voice
from tests.support.deadlines import HANG_S
from tests.support.fakes import FakeEngine
from tests.support.registries import CARD
from tests.unit.workers.test_server import clone, good_store
from workers.adapters import AdapterCache, Fetch
from workers.warm_up import warm_up

pytestmark = pytest.mark.anyio

MODEL = CARD.model_copy(update={"name": "fake"})
HOUR_S = 3600.0


def described(id: str, epoch: int = 1, state: WorkerState = WorkerState.ACTIVE) -> Worker:
    return Worker(id=id, epoch=epoch, address="ws://x", model=MODEL, state=state, capacity=40, max_voices=40)


async def working(registry: Registry, id: str) -> Worker:
    worker = described(id, await registry.join(id))
    await registry.beat(worker, [])
    return worker


def voices(count: int) -> list[Voice]:
    return [clone(f"v{number}", lora_id=number + 1) for number in range(count)]


async def want(registry: Registry, worker: Worker, wanted: list[Voice]) -> None:
    """Each has a listener, and the first has most."""
    for rank, voice in enumerate(wanted):
        for time in range(len(wanted) - rank):
            session = f"{voice.id}-{time}"
            assert await registry.claim(worker, session, voice)
            await registry.release(worker.id, session)


def cache(engine: FakeEngine, directory: Path, fetch: Fetch = good_store) -> AdapterCache:
    clock = asyncio.get_running_loop().time
    return AdapterCache(engine, fetch, directory, max_resident=40, max_rank=16, patience_s=0, clock=clock)


async def test_it_loads_its_share_of_what_is_wanted_the_most_wanted_first(registry: Registry, tmp_path: Path) -> None:
    there, wanted = await working(registry, "there"), voices(12)
    await want(registry, there, wanted)
    me, engine = described("me", state=WorkerState.STARTING), FakeEngine()
    loaded = await warm_up(me, registry, cache(engine, tmp_path), most=40, timeout_s=HOUR_S)
    both = [there, described("me")]
    mine = [f"{voice.id}@1" for voice in wanted if next(candidates(both, voice)).worker.id == "me"]
    assert engine.loaded == mine
    assert loaded == len(mine)
    assert 0 < len(mine) < 12


async def test_it_loads_no_more_than_is_allowed(registry: Registry, tmp_path: Path) -> None:
    wanted, engine = voices(6), FakeEngine()
    await want(registry, await working(registry, "me"), wanted)
    assert await warm_up(described("me"), registry, cache(engine, tmp_path), most=2, timeout_s=HOUR_S) == 2
    assert engine.loaded == ["v0@1", "v1@1"]


async def test_a_voice_that_cannot_be_loaded_or_is_deleted_is_left_out(registry: Registry, tmp_path: Path) -> None:
    def fetch(uri: str, file: str, path: Path) -> None:
        if "/v1/" in uri:
            raise AdapterUnavailable("gone")
        good_store(uri, file, path)

    wanted, engine = voices(4), FakeEngine()
    await want(registry, await working(registry, "me"), wanted)
    await registry.retire_voice("v2")
    assert await warm_up(described("me"), registry, cache(engine, tmp_path, fetch), most=40, timeout_s=HOUR_S) == 2
    assert engine.loaded == ["v0@1", "v3@1"]


async def test_a_voice_that_another_version_has_written_down_otherwise_is_left_out(
    registry: Registry, settings: Settings, tmp_path: Path
) -> None:
    engine = FakeEngine()
    await want(registry, await working(registry, "me"), voices(2))
    async with open_redis(settings) as redis:
        key = f"{ROOT}versions:{MODEL.name}"
        written = await redis.hgetall(key)
        name = next(name for name, record in written.items() if json.loads(record)["voice_id"] == "v0")
        record = json.loads(written[name])
        del record["voice_id"]
        await redis.hset(key, name, json.dumps(record))
    assert await warm_up(described("me"), registry, cache(engine, tmp_path), most=40, timeout_s=HOUR_S) == 1
    assert engine.loaded == ["v1@1"]


async def test_a_store_that_hangs_keeps_a_worker_from_serving_for_a_bounded_time(
    registry: Registry, tmp_path: Path
) -> None:
    called, answer = threading.Event(), threading.Event()

    def slow(uri: str, file: str, path: Path) -> None:
        called.set()
        answer.wait(HANG_S)
        raise AdapterUnavailable("too late")

    await want(registry, await working(registry, "me"), voices(2))
    adapters = cache(FakeEngine(), tmp_path, slow)
    assert await warm_up(described("me"), registry, adapters, most=40, timeout_s=0.3) == 0
    assert called.is_set()
    answer.set()
    await adapters.aclose()


async def test_a_registry_that_is_away_keeps_no_worker_from_serving(tmp_path: Path) -> None:
    settings = Settings.model_validate({"redis_url": "redis://127.0.0.1:1/0"})
    async with open_redis(settings) as redis:
        adapters = cache(FakeEngine(), tmp_path)
        assert await warm_up(described("me"), Registry(redis, settings), adapters, most=40, timeout_s=HOUR_S) == 0
