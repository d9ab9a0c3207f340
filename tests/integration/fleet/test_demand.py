"""Which voices are wanted, as the registry counts it against a real Valkey, for workers that join."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis

from app.fleet.registry import ROOT, Registry
from tests.support.registries import BUILT_IN, CARD, clone, join

pytestmark = pytest.mark.anyio

DEMAND, VERSIONS, FADED = (f"{ROOT}{name}:standin" for name in ("demand", "versions", "faded"))


async def names(registry: Registry, model: str = "standin") -> list[str]:
    return [version.name for version in await registry.most_demanded(model)]


async def test_the_most_wanted_voices_come_first_with_all_that_is_needed_to_load_them(registry: Registry) -> None:
    worker = await join(registry, capacity=10, max_voices=10)
    for number, id in enumerate("abbabb"):
        await registry.claim(worker, f"s{number}", clone(id))
    voice = clone("b")
    assert (await registry.most_demanded("standin"))[0] == voice.adapter
    assert await names(registry) == ["b@1", "a@1"]


async def test_only_what_listeners_are_given_counts(registry: Registry) -> None:
    worker = await join(registry, capacity=2, max_voices=2)
    await registry.claim(worker, "s1", clone("a"))
    await registry.claim(worker, "book", clone("b"), background=True)
    await registry.claim(worker, "s2", BUILT_IN)
    assert not await registry.claim(worker, "s3", clone("c"))
    assert await names(registry) == ["a@1"]


async def test_each_model_has_a_demand_of_its_own(registry: Registry) -> None:
    here = await join(registry)
    there = await join(registry, "w2", model=CARD.model_copy(update={"name": "orpheus"}))
    await registry.claim(here, "s1", clone("a"))
    await registry.claim(there, "s2", clone("b", model="orpheus"))
    assert (await names(registry), await names(registry, "orpheus")) == (["a@1"], ["b@1"])


async def test_a_deleted_voice_is_wanted_no_more(registry: Registry) -> None:
    worker = await join(registry)
    await registry.claim(worker, "s1", clone("a"))
    await registry.claim(worker, "s2", clone("b@b"))
    await registry.retire_voice("b@b")
    assert await names(registry) == ["a@1"]


async def test_demand_fades_by_half_in_ten_minutes(registry: Registry, redis: Redis) -> None:
    worker = await join(registry, capacity=10)
    for number in range(4):
        await registry.claim(worker, f"s{number}", clone("a"))
    await redis.decrby(FADED, 600_000)
    await registry.claim(worker, "later", clone("b"))
    assert await redis.zscore(DEMAND, "a@1") == pytest.approx(2, rel=0.01)
    assert await redis.zscore(DEMAND, "b@1") == 1


async def test_of_very_many_voices_the_least_wanted_are_forgotten(registry: Registry, redis: Redis) -> None:
    worker = await join(registry, capacity=10)
    await registry.claim(worker, "s1", clone("first"))
    await redis.zadd(DEMAND, {f"v{number}@1": 0.5 for number in range(2_000)})
    await redis.hset(VERSIONS, mapping={f"v{number}@1": "{}" for number in range(2_000)})
    await registry.claim(worker, "s2", clone("a"))
    assert await redis.zcard(DEMAND) == await redis.hlen(VERSIONS) == 1_000
    assert (await redis.zrevrange(DEMAND, 0, 1)) in ([b"first@1", b"a@1"], [b"a@1", b"first@1"])


async def test_demand_expires_when_nothing_was_requested_for_a_day(registry: Registry, redis: Redis) -> None:
    worker = await join(registry)
    await registry.claim(worker, "s1", clone("a"))
    for key in (DEMAND, VERSIONS, FADED):
        assert 0 < await redis.pttl(key) <= 24 * 3600 * 1000
