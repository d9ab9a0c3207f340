"""Looking only at what has changed comes to the same as looking at everything, against a real Valkey."""

from __future__ import annotations

import random

import pytest
from redis.asyncio import Redis

from app.fleet.registry import ROOT, LeaseRecord, Registry
from app.fleet.worker import Worker, WorkerState
from app.platform.settings import Settings
from tests.support.registries import BUILT_IN, CARD, clone, expire

pytestmark = pytest.mark.anyio

WORKERS = ("w1", "w2", "w3")


class Life:
    """Things that happen to a fleet, drawn by `random`."""

    def __init__(self, registry: Registry, redis: Redis, seed: int) -> None:
        self._registry = registry
        self._redis = redis
        self._random = random.Random(seed)
        self._workers: dict[str, Worker] = {}
        self._held: dict[str, list[LeaseRecord]] = {id: [] for id in WORKERS}

    async def go_on(self) -> None:
        happens = self._random.choices(
            [
                self.join,
                self.beat,
                self.claim,
                self.release,
                self.lapse,
                self.drain,
                self.leave,
                self.vanish,
                self.flush,
            ],
            [3, 10, 10, 6, 3, 1, 1, 1, 0.5],
        )[0]
        await happens(self._random.choice(WORKERS))

    async def join(self, id: str) -> None:
        fields = {"address": "ws://x", "model": CARD, "state": "active", "capacity": 4, "max_voices": 3}
        self._workers[id] = Worker.model_validate({"id": id, "epoch": await self._registry.join(id), **fields})
        self._held[id] = []
        await self.beat(id)

    async def beat(self, id: str) -> None:
        if id in self._workers:
            ready = frozenset(f"{name}@1" for name in "abc" if self._random.random() < 0.5)
            state = self._random.choice([WorkerState.ACTIVE, WorkerState.ACTIVE, WorkerState.STARTING])
            changed = self._workers[id].model_copy(update={"ready_adapters": ready, "state": state})
            await self._registry.beat(changed if self._random.random() < 0.5 else self._workers[id], self._held[id])

    async def claim(self, id: str) -> None:
        voice = self._random.choice([BUILT_IN, clone("a"), clone("b")])
        session, background = f"s{self._random.random()}", self._random.random() < 0.3
        if id in self._workers and await self._registry.claim(self._workers[id], session, voice, background=background):
            self._held[id].append(LeaseRecord(session, voice.adapter.name if voice.adapter else "", background))

    async def release(self, id: str) -> None:
        if self._held[id]:
            await self._registry.release(id, self._held[id].pop().session)

    async def lapse(self, id: str) -> None:
        """A lease expires, and the next heartbeat finds out."""
        if self._held[id] and await self._redis.zscore(f"{ROOT}leases:{id}", self._held[id][-1].session):
            await expire(self._redis, self._held[id].pop().session, id)
            await self.beat(id)

    async def drain(self, id: str) -> None:
        await self._registry.drain(id, 60)

    async def leave(self, id: str) -> None:
        if id in self._workers:
            await self._registry.leave(id, self._workers.pop(id).epoch)

    async def vanish(self, id: str) -> None:
        """The record expires: so the server says, and forgets it."""
        await self._redis.zadd(f"{ROOT}workers", {id: 1}, xx=True)
        await self._redis.delete(f"{ROOT}worker:{id}")

    async def flush(self, id: str) -> None:
        await self._redis.flushdb()


@pytest.mark.parametrize("seed", range(5))
async def test_a_later_snapshot_has_what_a_first_one_has(redis: Redis, settings: Settings, seed: int) -> None:
    old = Registry(redis, settings)
    life = Life(Registry(redis, settings), redis, seed)
    seen: set[int] = set()
    for _ in range(150):
        await life.go_on()
        known = {worker.id: worker for worker in await old.snapshot()}
        assert known == {worker.id: worker for worker in await Registry(redis, settings).snapshot()}
        seen.add(len(known))
    assert seen == {0, 1, 2, 3}


async def test_a_clock_that_is_set_back_with_the_memory_lost_hides_nothing(redis: Redis, settings: Settings) -> None:
    life = Life(Registry(redis, settings), redis, seed=0)
    old = Registry(redis, settings)
    for id in WORKERS:
        await life.join(id)
    await redis.zadd(f"{ROOT}changes", {"w1": 9e15})  # as a clock that was an age ahead would have it
    assert len(await old.snapshot()) == 3
    await redis.flushdb()
    await life.beat("w2")
    assert [worker.id for worker in await old.snapshot()] == ["w2"]
