"""A front door's view of the fleet, with a registry on a real Valkey. Its clock is the test's."""

from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis

from app.fleet.placement import Candidate
from app.fleet.registry import ROOT, LeaseRecord, Registry
from app.fleet.view import START_SILENCE_S, FleetView
from app.platform.settings import Settings
from app.speech.voices import Voice
from tests.support.deadlines import HANG_S
from tests.support.registries import BUILT_IN, CARD, clone, join

pytestmark = pytest.mark.anyio


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def fleet(registry: Registry, settings: Settings, clock: Clock) -> FleetView:
    return FleetView(registry, settings, clock)


async def vanish(redis: Redis, worker_id: str = "w1") -> None:
    assert await redis.delete(f"{ROOT}worker:{worker_id}")
    assert await redis.zadd(f"{ROOT}workers", {worker_id: 1}, ch=True)


def offered(fleet: FleetView, voice: Voice = BUILT_IN) -> list[str]:
    return [candidate.worker.id for candidate in fleet.candidates(voice)]


async def test_a_fleet_counts_what_is_being_claimed_here_before_the_next_look(
    registry: Registry, fleet: FleetView
) -> None:
    await join(registry, capacity=2, max_voices=1)
    await fleet.refresh()
    (worker,) = fleet.workers
    fleet.occupy(worker, clone("a"))
    (busier,) = fleet.workers
    assert (busier.inflight, busier.active_adapters) == (1, {"a@1"})
    fleet.exclude(worker)
    assert fleet.workers[0].inflight == 2
    await fleet.refresh()
    assert fleet.workers == (worker,)


async def test_a_fleet_counts_what_it_claims_in_the_background_apart(registry: Registry, fleet: FleetView) -> None:
    await join(registry, capacity=2, max_voices=1)
    await fleet.refresh()
    (worker,) = fleet.workers
    fleet.occupy(worker, clone("a"), background=True)
    (busier,) = fleet.workers
    assert (busier.inflight, busier.background, busier.background_adapters) == (0, 1, {"a@1"})
    fleet.exclude(worker, background=True)
    assert (fleet.workers[0].inflight, fleet.workers[0].background) == (0, 2)
    fleet.occupy(worker, clone("a"))
    assert (fleet.workers[0].active_adapters, fleet.workers[0].background_adapters) == ({"a@1"}, frozenset())
    await fleet.refresh()
    fleet.occupy(worker, BUILT_IN, background=True)
    fleet.vacate(worker, background=True)
    assert fleet.workers == (worker,)


async def test_a_waiter_for_the_fleet_is_woken_by_the_next_refresh(registry: Registry, fleet: FleetView) -> None:
    await join(registry)
    waiting = asyncio.create_task(fleet.changed(timeout_s=60))
    await asyncio.sleep(0)
    await fleet.refresh()
    async with asyncio.timeout(HANG_S):
        await waiting


async def test_a_worker_that_vanishes_stays_known_for_a_while_and_is_not_offered(
    registry: Registry, redis: Redis, fleet: FleetView, clock: Clock
) -> None:
    worker = await join(registry)
    await fleet.refresh()
    await vanish(redis)
    await fleet.refresh()
    assert fleet.workers == (worker,)
    assert fleet.models == (CARD,)
    assert offered(fleet) == []
    assert fleet.recovering("standin")
    clock.now_s += 2.9
    await fleet.refresh()
    assert not fleet.missing(worker)
    clock.now_s += 0.1
    await fleet.refresh()
    assert (fleet.workers, fleet.models) == ((), (CARD,))
    assert fleet.missing(worker)
    assert not fleet.recovering("standin")
    assert "none has started again yet" in (fleet.wait_reason("standin") or "")


async def test_a_model_without_workers_is_remembered_as_long_as_its_sessions_wait(
    registry: Registry, redis: Redis, fleet: FleetView, clock: Clock, settings: Settings
) -> None:
    await join(registry)
    await fleet.refresh()
    await vanish(redis)
    for pause_s in (0.0, settings.worker_ttl_s):
        clock.now_s += pause_s
        await fleet.refresh()
    assert fleet.models == (CARD,)
    clock.now_s += settings.session.move_timeout_s + 0.1
    await fleet.refresh()
    assert fleet.models == ()
    assert fleet.wait_reason("standin") is None


async def test_a_worker_that_comes_back_in_time_was_never_missing(
    registry: Registry, redis: Redis, fleet: FleetView, clock: Clock
) -> None:
    worker = await join(registry)
    await fleet.refresh()
    for _ in range(3):
        await vanish(redis)
        await fleet.refresh()
        clock.now_s += 2
        await registry.beat(worker, [])
        await fleet.refresh()
        assert not fleet.missing(worker)
        assert offered(fleet) == ["w1"]


async def test_a_worker_that_has_restarted_is_missing_in_its_older_epoch(registry: Registry, fleet: FleetView) -> None:
    older = await join(registry)
    await fleet.refresh()
    newer = await join(registry)
    await fleet.refresh()
    assert fleet.missing(older)
    assert not fleet.missing(newer)


async def test_a_worker_that_falls_silent_while_it_loads_is_waited_for_a_while(
    registry: Registry, redis: Redis, fleet: FleetView, clock: Clock, settings: Settings
) -> None:
    await join(registry, state="starting")
    await fleet.refresh()
    assert fleet.starts("standin")
    await vanish(redis)
    await fleet.refresh()
    clock.now_s += settings.worker_ttl_s
    await fleet.refresh()
    assert not fleet.workers
    assert fleet.starts("standin"), "an import holds its interpreter"
    clock.now_s += START_SILENCE_S
    assert not fleet.starts("standin")


async def test_a_model_is_recovering_only_while_all_its_workers_have_vanished(
    registry: Registry, redis: Redis, fleet: FleetView
) -> None:
    await join(registry, "w1")
    await join(registry, "w2")
    await fleet.refresh()
    assert not fleet.recovering("standin")
    await vanish(redis, "w1")
    await fleet.refresh()
    assert not fleet.recovering("standin")
    assert offered(fleet) == ["w2"]
    await vanish(redis, "w2")
    await fleet.refresh()
    assert fleet.recovering("standin")
    assert not fleet.recovering("orpheus")


async def test_a_flush_is_over_with_the_workers_next_heartbeat(
    registry: Registry, redis: Redis, fleet: FleetView
) -> None:
    worker = await join(registry, capacity=2)
    await fleet.refresh()
    assert await fleet.claim(next(fleet.candidates(BUILT_IN)), "s1", BUILT_IN)
    await redis.flushdb()
    await fleet.refresh()
    assert fleet.models == (CARD,)
    await registry.beat(worker, [LeaseRecord("s1")])
    await fleet.refresh()
    assert offered(fleet) == ["w1"]
    assert fleet.workers[0].inflight == 1


async def test_a_claim_that_loses_the_race_for_the_last_place_below_the_bound_is_refused_and_the_view_corrected(
    registry: Registry, settings: Settings
) -> None:
    for id in ("w1", "w2"):
        await join(registry, id, capacity=8)
    doors = [FleetView(registry, settings) for _ in range(2)]
    voice = Voice(id="v", name="v", model="standin")
    for door in doors:
        await door.refresh()
    wanted = [next(door.candidates(voice)) for door in doors]
    home = wanted[0].worker
    assert {candidate.worker.id for candidate in wanted} == {home.id}
    assert {candidate.bound for candidate in wanted} == {2}
    assert [await doors[0].claim(wanted[0], f"s{number}", voice) for number in (1, 2, 3)] == [True, True, False]
    assert not await doors[1].claim(wanted[1], "s4", voice)
    known = next(worker for worker in doors[1].workers if worker.id == home.id)
    assert known.inflight == 2
    assert (await registry.try_claim(home, "s5", voice)).claimed


async def test_a_claim_at_a_worker_that_is_gone_takes_it_out_of_the_view_until_the_next_refresh(
    registry: Registry, redis: Redis, fleet: FleetView
) -> None:
    worker = await join(registry)
    await fleet.refresh()
    await vanish(redis)
    assert not await fleet.claim(Candidate(worker, "home", 2), "s1", BUILT_IN)
    assert offered(fleet) == []


async def test_front_doors_that_see_the_same_snapshot_agree_whatever_they_saw_and_did_before(
    registry: Registry, settings: Settings
) -> None:
    workers = [await join(registry, f"w{number}", capacity=4, max_voices=4) for number in range(5)]
    old, new = FleetView(registry, settings), FleetView(registry, settings)
    await old.refresh()
    for number in range(12):
        voice = clone(f"v{number % 5}")
        candidate = next(old.candidates(voice))
        await old.claim(candidate, f"s{number}", voice)
    old.exclude(workers[0])
    old.occupy(workers[1], clone("never claimed"))
    await registry.leave("w2", workers[2].epoch)
    await join(registry, "w5", capacity=9)
    for door in (old, new):
        await door.refresh()
    for number in range(20):
        voice = clone(f"v{number}")
        expected = list(new.candidates(voice))
        assert list(old.candidates(voice)) == expected


async def test_a_worker_that_changes_its_model_is_offered_to_its_new_voices_only(
    registry: Registry, fleet: FleetView
) -> None:
    await join(registry)
    await fleet.refresh()
    other = CARD.model_copy(update={"name": "orpheus"})
    await join(registry, model=other)
    await fleet.refresh()
    assert fleet.models == (other,)
    assert offered(fleet) == []
    assert offered(fleet, Voice(id="v", name="v", model="orpheus")) == ["w1"]
