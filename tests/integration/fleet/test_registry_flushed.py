"""A registry that loses what it had, against a real Valkey: what comes back, and what must not."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis

from app.fleet.registry import ROOT, LeaseRecord, Registry
from tests.support.registries import BUILT_IN, clone, join, only

pytestmark = pytest.mark.anyio


SPEAKING = [LeaseRecord("s1", "a@1"), LeaseRecord("s2"), LeaseRecord("book", "b@1", background=True)]


async def test_one_heartbeat_brings_back_every_lease_with_its_adapter_and_its_kind(
    registry: Registry, redis: Redis
) -> None:
    worker = await join(registry, capacity=4)
    await registry.claim(worker, "s1", clone("a"))
    await registry.claim(worker, "s2", BUILT_IN)
    await registry.claim(worker, "book", clone("b"), background=True)
    before = await only(registry)
    await redis.flushdb()
    assert await registry.snapshot() == ()
    reply = await registry.beat(worker, SPEAKING)
    assert reply is not None and reply.unknown == ()
    assert await only(registry) == before
    assert (before.inflight, before.background, before.active_adapters) == (2, 1, {"a@1"})


async def test_no_place_is_given_twice_although_everything_was_forgotten_in_between(
    registry: Registry, redis: Redis
) -> None:
    worker = await join(registry, capacity=1)
    assert await registry.claim(worker, "s1", BUILT_IN)
    await redis.flushdb()
    assert not await registry.claim(worker, "s2", BUILT_IN)
    await registry.beat(worker, [LeaseRecord("s1")])
    assert not await registry.claim(worker, "s2", BUILT_IN)
    await registry.release("w1", "s1")
    assert await registry.claim(worker, "s2", BUILT_IN)


async def test_a_worker_that_was_cut_off_for_longer_than_its_leases_hold_gets_them_back(
    registry: Registry, redis: Redis
) -> None:
    worker = await join(registry)
    await registry.claim(worker, "s1", clone("a"))
    await redis.delete(f"{ROOT}worker:w1", f"{ROOT}workers", f"{ROOT}leases:w1", f"{ROOT}voices:w1")
    await registry.beat(worker, [LeaseRecord("s1", "a@1")])
    seen = await only(registry)
    assert (seen.inflight, seen.active_adapters) == (1, {"a@1"})


async def test_a_session_claimed_before_the_loss_and_begun_after_it_is_reported_unknown_and_then_brought_back(
    registry: Registry, redis: Redis
) -> None:
    worker = await join(registry)
    await registry.claim(worker, "late", clone("a"))
    await redis.flushdb()
    await registry.beat(worker, [])
    reply = await registry.beat(worker, [LeaseRecord("late", "a@1")])
    assert reply is not None and reply.unknown == ("late",)
    assert (await only(registry)).inflight == 0
    reply = await registry.beat(worker, [LeaseRecord("late", "a@1")], again=reply.unknown)
    assert reply is not None and reply.unknown == ()
    seen = await only(registry)
    assert (seen.inflight, seen.active_adapters) == (1, {"a@1"})


async def test_an_epoch_is_not_given_again_although_the_registry_has_forgotten_it(
    registry: Registry, redis: Redis
) -> None:
    first = await registry.join("w1")
    await redis.flushdb()
    now_ms = first
    while now_ms <= first:  # none starts twice within a millisecond
        seconds, microseconds = await redis.time()
        now_ms = seconds * 1000 + microseconds // 1000
    assert first < await registry.join("w1")


async def test_a_superseded_worker_does_not_outlive_its_heir_in_a_registry_that_has_forgotten_both(
    registry: Registry, redis: Redis
) -> None:
    superseded = await join(registry)
    heir = await join(registry, address="ws://heir")
    await redis.flushdb()
    assert await registry.beat(superseded, [])
    assert await registry.beat(heir, [])
    assert await registry.beat(superseded, []) is None
    assert (await only(registry)).address == "ws://heir"
