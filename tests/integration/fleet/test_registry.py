"""The registry against a real Valkey. Time is moved by rewriting what the server remembers, never by waiting."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from app.errors import ConfigurationError, DeadlineExceeded
from app.fleet.registry import OBSERVED, ROOT, HeartbeatReply, LeaseRecord, Registry, open_redis
from app.fleet.worker import WorkerState
from app.platform.settings import Settings
from tests.support.registries import BUILT_IN, CARD, clone, expire, join, only

pytestmark = pytest.mark.anyio


@pytest.fixture
async def redis(valkey: str) -> AsyncIterator[Redis]:
    redis = open_redis(Settings(redis_url=SecretStr(valkey)))
    await redis.flushdb()
    yield redis
    await redis.aclose()


@pytest.fixture
def registry(redis: Redis, valkey: str) -> Registry:
    return Registry(redis, Settings(redis_url=SecretStr(valkey)))


async def test_a_worker_that_beats_is_in_the_snapshot_as_it_described_itself(registry: Registry) -> None:
    worker = await join(registry)
    assert await registry.snapshot() == (worker,)


async def test_two_checkpoints_never_share_a_name(registry: Registry, redis: Redis) -> None:
    mine, another = (CARD.model_copy(update={"checkpoint": weights}) for weights in ("a", "b"))
    first = await join(registry, "w1", model=mine)
    await join(registry, "w2", model=mine)

    with pytest.raises(ConfigurationError, match=r"'standin'.*CARILLON_SPEECH__NAME"):
        await join(registry, "w3", model=another)

    assert {worker.id for worker in await registry.snapshot()} == {"w1", "w2"}
    await join(registry, "w3", model=another.model_copy(update={"name": "finetuned"}))
    # When those that hold it are gone, and their records with them, the name is free.
    await registry.leave("w1", first.epoch)
    assert await redis.pexpire(f"{ROOT}checkpoint:standin", 0) > 0
    await join(registry, "w4", model=another)


async def test_every_start_has_a_greater_epoch(registry: Registry) -> None:
    first = await join(registry)
    await registry.leave("w1", first.epoch)
    assert await registry.join("w1") > first.epoch


async def test_a_worker_whose_record_has_expired_is_gone(registry: Registry, redis: Redis) -> None:
    worker = await join(registry)
    await redis.delete(f"{ROOT}worker:w1")
    await redis.zadd(f"{ROOT}workers", {"w1": 1})
    assert await registry.snapshot() == ()
    assert not await registry.claim(worker, "s1", BUILT_IN)


async def test_a_record_expires_by_itself_unless_it_beats(registry: Registry, redis: Redis) -> None:
    await join(registry)
    assert 0 < await redis.pttl(f"{ROOT}worker:w1") <= 3_000


async def test_a_claim_takes_a_place_until_it_is_released(registry: Registry) -> None:
    worker = await join(registry, capacity=1)
    assert await registry.claim(worker, "s1", BUILT_IN)
    assert (await only(registry)).inflight == 1
    assert not await registry.claim(worker, "s2", BUILT_IN)
    assert await registry.release("w1", "s1")
    assert await registry.claim(worker, "s2", BUILT_IN)


async def test_releasing_twice_is_harmless(registry: Registry) -> None:
    worker = await join(registry)
    await registry.claim(worker, "s1", BUILT_IN)
    assert [await registry.release("w1", "s1"), await registry.release("w1", "s1")] == [True, False]
    assert (await only(registry)).inflight == 0


async def test_of_many_claims_at_once_as_many_win_as_there_are_places(registry: Registry) -> None:
    worker = await join(registry, capacity=3)
    answers = await asyncio.gather(*(registry.claim(worker, f"s{i}", BUILT_IN) for i in range(20)))
    assert sum(answers) == 3


async def test_a_lease_that_is_not_renewed_expires_and_frees_its_place_and_its_lora_slot(
    registry: Registry, redis: Redis
) -> None:
    worker = await join(registry, capacity=1, max_voices=1)
    await registry.claim(worker, "s1", clone("a"))
    await expire(redis, "s1")
    assert await registry.claim(worker, "s2", clone("b"))
    assert (await only(registry)).active_adapters == {"b@1"}


async def test_a_heartbeat_renews_the_leases_it_names_and_no_others(registry: Registry, redis: Redis) -> None:
    worker = await join(registry)
    await registry.claim(worker, "s1", BUILT_IN)
    await registry.claim(worker, "s2", BUILT_IN)
    before = await redis.zscore(f"{ROOT}leases:w1", "s1")
    await expire(redis, "s1")
    await expire(redis, "s2")
    await registry.beat(worker, [LeaseRecord("s1")])
    after = await redis.zscore(f"{ROOT}leases:w1", "s1")
    assert before is not None and after is not None and after >= before
    assert (await only(registry)).inflight == 1


async def test_a_heartbeat_does_not_bring_back_a_lease_that_was_released(registry: Registry) -> None:
    worker = await join(registry)
    await registry.claim(worker, "s1", BUILT_IN)
    await registry.release("w1", "s1")
    await registry.beat(worker, [LeaseRecord("s1")])
    assert (await only(registry)).inflight == 0


async def test_distinct_adapters_are_bounded_by_the_lora_slots(registry: Registry) -> None:
    worker = await join(registry, capacity=8, max_voices=2)
    assert await registry.claim(worker, "s1", clone("a"))
    assert await registry.claim(worker, "s2", clone("b"))
    assert await registry.claim(worker, "s3", clone("a"))
    assert not await registry.claim(worker, "s4", clone("c"))
    assert not await registry.claim(worker, "s5", clone("a", version=2))
    assert await registry.claim(worker, "s6", BUILT_IN)
    await registry.release("w1", "s2")
    assert await registry.claim(worker, "s7", clone("c"))
    assert (await only(registry)).active_adapters == {"a@1", "c@1"}


async def test_of_many_claims_at_once_no_more_win_than_their_bound_says(registry: Registry) -> None:
    worker = await join(registry, capacity=9)
    answers = await asyncio.gather(*(registry.try_claim(worker, f"s{i}", BUILT_IN, bound=4) for i in range(20)))
    assert sum(answer.claimed for answer in answers) == 4
    assert {(answer.reason, answer.sessions) for answer in answers if not answer.claimed} == {("over", 4)}
    assert await registry.claim(worker, "beyond", BUILT_IN, bound=5)


async def test_a_claim_that_is_repeated_is_the_same_claim(registry: Registry) -> None:
    worker = await join(registry, capacity=1)
    assert [await registry.claim(worker, "s1", clone("a")) for _ in range(2)] == [True, True]
    assert (await only(registry)).inflight == 1


async def test_of_many_claims_at_once_no_more_voices_win_than_there_are_slots(registry: Registry) -> None:
    worker = await join(registry, capacity=40, max_voices=3)
    voices = [clone(f"v{number % 10}") for number in range(40)]
    await asyncio.gather(*(registry.claim(worker, f"s{number}", voice) for number, voice in enumerate(voices)))
    assert len((await only(registry)).active_adapters) == 3


async def test_a_switch_of_versions_takes_two_slots_until_the_old_one_falls_silent(registry: Registry) -> None:
    worker = await join(registry, capacity=8, max_voices=1)
    assert await registry.claim(worker, "old", clone("a"))
    assert not await registry.claim(worker, "new", clone("a", version=2))
    await registry.release("w1", "old")
    assert await registry.claim(worker, "new", clone("a", version=2))


async def test_a_background_claim_needs_a_place_beside_all_others_and_hinders_none(registry: Registry) -> None:
    worker = await join(registry, capacity=3)
    assert await registry.claim(worker, "live1", BUILT_IN)
    assert await registry.claim(worker, "book1", BUILT_IN, background=True)
    assert await registry.claim(worker, "book2", BUILT_IN, background=True)
    assert not await registry.claim(worker, "book3", BUILT_IN, background=True)
    seen = await only(registry)
    assert (seen.inflight, seen.background) == (1, 2)
    assert [await registry.claim(worker, f"live{number}", BUILT_IN) for number in (2, 3, 4)] == [True, True, False]
    await registry.release("w1", "book1")
    await registry.release("w1", "live1")
    assert not await registry.claim(worker, "book3", BUILT_IN, background=True)
    await registry.release("w1", "book2")
    assert await registry.claim(worker, "book3", BUILT_IN, background=True)
    seen = await only(registry)
    assert (seen.inflight, seen.background) == (2, 1)


async def test_a_lora_slot_that_only_background_sessions_hold_is_free_to_interactive_ones(registry: Registry) -> None:
    worker = await join(registry, capacity=8, max_voices=2)
    assert await registry.claim(worker, "s1", clone("a"))
    assert await registry.claim(worker, "book1", clone("a"), background=True)
    assert await registry.claim(worker, "book2", clone("b"), background=True)
    assert not await registry.claim(worker, "book3", clone("c"), background=True)
    seen = await only(registry)
    assert (seen.active_adapters, seen.background_adapters) == ({"a@1"}, {"b@1"})
    assert await registry.claim(worker, "s2", clone("c"))
    assert not await registry.claim(worker, "s3", clone("d"))
    await registry.release("w1", "s1")
    assert (await only(registry)).background_adapters == {"a@1", "b@1"}


async def test_of_many_claims_of_both_kinds_at_once_all_that_listen_win_and_the_others_share_the_rest(
    registry: Registry,
) -> None:
    worker = await join(registry, capacity=3)
    claims = [registry.claim(worker, f"s{number}", BUILT_IN, background=number % 2 == 0) for number in range(20)]
    answers = await asyncio.gather(*claims)
    assert sum(answers[1::2]) == 3
    assert sum(answers[::2]) <= 3


async def test_a_background_lease_that_is_not_renewed_leaves_no_trace(registry: Registry, redis: Redis) -> None:
    worker = await join(registry, capacity=1)
    await registry.claim(worker, "book", clone("a"), background=True)
    await expire(redis, "book")
    await registry.beat(worker, [])
    seen = await only(registry)
    assert (seen.inflight, seen.background, seen.background_adapters) == (0, 0, frozenset())
    assert not await redis.exists(f"{ROOT}background:w1")
    assert await registry.claim(worker, "book again", BUILT_IN, background=True)


async def test_a_heartbeat_renews_a_background_lease_as_any_other(registry: Registry, redis: Redis) -> None:
    worker = await join(registry)
    await registry.claim(worker, "book", BUILT_IN, background=True)
    await redis.pexpire(f"{ROOT}background:w1", 500)
    await registry.beat(worker, [LeaseRecord("book", background=True)])
    assert await redis.pttl(f"{ROOT}background:w1") > 5_000
    assert (await only(registry)).background == 1


async def test_a_deleted_voice_is_returned_by_the_next_heartbeat_and_then_no_more(registry: Registry) -> None:
    worker = await join(registry)
    await registry.retire_voice("ada")
    reply = await registry.beat(worker, [])
    assert reply is not None and reply.retired == ("ada",)
    again = await registry.beat(worker, [], retired_since=reply.retired_until)
    assert again == HeartbeatReply((), reply.retired_until)


async def test_voices_deleted_at_one_moment_or_while_the_clock_is_set_back_are_all_returned(
    registry: Registry, redis: Redis
) -> None:
    worker = await join(registry)
    await registry.retire_voice("from the future")
    assert await redis.zincrby(f"{ROOT}retired", 3_600_000, "from the future")
    reply = await registry.beat(worker, [])
    assert reply is not None and reply.retired == ("from the future",)
    for voice_id in ("a", "b", "c"):
        await registry.retire_voice(voice_id)
    later = await registry.beat(worker, [], retired_since=reply.retired_until)
    assert later is not None and later.retired == ("a", "b", "c")


async def test_a_repeated_deletion_is_returned_again(registry: Registry) -> None:
    worker = await join(registry)
    await registry.retire_voice("ada")
    reply = await registry.beat(worker, [])
    assert reply is not None
    await registry.retire_voice("ada")
    again = await registry.beat(worker, [], retired_since=reply.retired_until)
    assert again is not None and again.retired == ("ada",)


async def test_deletions_are_kept_for_a_day(registry: Registry, redis: Redis) -> None:
    worker, day_ms = await join(registry), 24 * 3600 * 1000
    await registry.retire_voice("the day before")
    await redis.zincrby(f"{ROOT}retired", -day_ms - 1, "the day before")
    await registry.retire_voice("today")
    reply = await registry.beat(worker, [])
    assert reply is not None and reply.retired == ("today",)
    assert 0 < await redis.pttl(f"{ROOT}retired") <= day_ms


@pytest.mark.parametrize("state", [WorkerState.STARTING, WorkerState.DRAINING])
async def test_only_an_active_worker_can_be_claimed(registry: Registry, state: WorkerState) -> None:
    worker = await join(registry, state=state)
    assert not await registry.claim(worker, "s1", BUILT_IN)


async def test_a_claim_on_an_older_epoch_is_refused(registry: Registry) -> None:
    older = await join(registry)
    newer = await join(registry)
    assert not await registry.claim(older, "s1", BUILT_IN)
    assert await registry.claim(newer, "s1", BUILT_IN)


async def test_a_worker_that_is_to_drain_is_not_claimed_from_that_moment_and_gets_the_order_with_its_heartbeat(
    registry: Registry,
) -> None:
    worker = await join(registry)
    order = await registry.drain("w1", 30)
    assert order is not None and order.epoch == worker.epoch and order.deadline_s == 30
    assert not await registry.claim(worker, "s1", BUILT_IN)
    assert (await only(registry)).state is WorkerState.DRAINING
    reply = await registry.beat(worker, [])
    assert reply is not None and reply.drain_s is not None and 0 < reply.drain_s <= 30


async def test_the_first_order_to_drain_stands_until_the_worker_has_restarted(registry: Registry) -> None:
    worker = await join(registry)
    await registry.drain("w1", 30)
    again = await registry.drain("w1", 3600)
    assert again is not None and again.deadline_s is not None and again.deadline_s <= 30
    heir = await join(registry)
    assert heir.epoch > worker.epoch
    reply = await registry.beat(heir, [])
    assert reply is not None and reply.drain_s is None
    assert await registry.claim(heir, "s1", BUILT_IN)


async def test_a_worker_that_drains_of_itself_needs_no_order(registry: Registry) -> None:
    worker = await join(registry, state=WorkerState.DRAINING)
    order = await registry.drain("w1", 30)
    assert order is not None and (order.epoch, order.deadline_s) == (worker.epoch, None)


async def test_an_order_is_heard_once_the_worker_says_so_and_is_for_one_epoch_alone(registry: Registry) -> None:
    worker = await join(registry)
    first = await registry.drain("w1", 30)
    assert first is not None and not first.heard
    await registry.beat(worker.model_copy(update={"state": WorkerState.DRAINING}), [])
    again = await registry.drain("w1", 30, epoch=worker.epoch)
    assert again is not None and again.heard
    heir = await join(registry)
    assert await registry.drain("w1", 30, epoch=worker.epoch) is None
    reply = await registry.beat(heir, [])
    assert reply is not None and reply.drain_s is None


async def test_a_worker_of_a_newer_version_is_seen_though_it_says_more(registry: Registry, redis: Redis) -> None:
    worker = await join(registry)
    record = {**json.loads(worker.model_dump_json(exclude=OBSERVED)), "humidity": 0.4}
    await redis.set(f"{ROOT}worker:w1", json.dumps(record))
    assert (await only(registry)).id == "w1"


async def test_a_worker_that_is_not_there_cannot_be_drained(registry: Registry) -> None:
    assert await registry.drain("w1", 30) is None


async def test_a_worker_of_which_nothing_has_changed_is_the_same_object_at_the_next_look(registry: Registry) -> None:
    await join(registry, "idle")
    busy = await join(registry, "busy")
    before = {worker.id: worker for worker in await registry.snapshot()}
    await registry.claim(busy, "s1", clone("a"))
    after = {worker.id: worker for worker in await registry.snapshot()}
    assert after["idle"] is before["idle"]
    assert (after["busy"].inflight, after["busy"].active_adapters) == (1, {"a@1"})
    await registry.beat(busy.model_copy(update={"ready_adapters": frozenset({"a@1"})}), [LeaseRecord("s1")])
    assert {worker.id: worker.ready_adapters for worker in await registry.snapshot()}["busy"] == {"a@1"}


async def test_a_record_of_another_version_is_left_out_and_the_others_are_seen(
    registry: Registry, redis: Redis
) -> None:
    await join(registry, "newer")
    worker = await join(registry)
    record = f"{ROOT}worker:newer"
    await redis.set(record, '{"id": "newer", "from_the_future": 1}', keepttl=True)
    assert await registry.snapshot() == (worker,)


async def test_a_restart_forgets_the_leases_of_the_start_before(registry: Registry) -> None:
    older = await join(registry, capacity=1)
    await registry.claim(older, "s1", clone("a"))
    newer = await join(registry, capacity=1)
    assert await registry.snapshot() == (newer,)


async def test_a_superseded_worker_is_notified_and_changes_nothing(registry: Registry) -> None:
    superseded = await join(registry)
    heir = await join(registry, address="ws://heir")
    assert not await registry.beat(superseded, [])
    assert not await registry.leave("w1", superseded.epoch)
    assert await registry.snapshot() == (heir,)


async def test_a_worker_that_leaves_is_gone_at_once(registry: Registry, redis: Redis) -> None:
    worker = await join(registry)
    await registry.claim(worker, "s1", clone("a"))
    await registry.claim(worker, "book", clone("a"), background=True)
    assert await registry.leave("w1", worker.epoch)
    assert await registry.snapshot() == ()
    assert [key for key in await redis.keys(f"{ROOT}*w1*")] == []


async def test_nothing_but_epochs_stays_for_ever(registry: Registry, redis: Redis) -> None:
    worker = await join(registry)
    await registry.claim(worker, "s1", clone("a"))
    await registry.claim(worker, "book", clone("a"), background=True)
    await registry.retire_voice("b")
    await registry.drain("w1", 3600)
    await registry.beat(worker, [LeaseRecord("s1")])
    lasting = [key for key in await redis.keys("*") if await redis.pttl(key) == -1]
    assert sorted(lasting) == [f"{ROOT}{name}".encode() for name in ("changes", "epochs", "workers")]


async def test_all_keys_lie_in_one_slot_of_a_cluster(registry: Registry, redis: Redis) -> None:
    worker = await join(registry)
    await registry.claim(worker, "s1", clone("a"))
    await registry.claim(worker, "book", clone("a"), background=True)
    await registry.retire_voice("b")
    await registry.drain("w1", 3600)
    assert await redis.keys("*") == await redis.keys("carillon:{fleet}:*")


async def test_a_redis_that_is_away_is_an_error_of_ours(redis: Redis) -> None:
    nowhere = Settings(redis_url=SecretStr("redis://127.0.0.1:1/0"))
    async with open_redis(nowhere) as client:
        with pytest.raises(DeadlineExceeded, match="CARILLON_REDIS_URL"):
            await Registry(client, nowhere).snapshot()


async def test_a_cancel_is_never_lost_in_a_call(registry: Registry) -> None:
    async def look_for_ever() -> None:
        while True:
            await registry.snapshot()

    for turns in range(60):
        watcher = asyncio.create_task(look_for_ever())
        for _ in range(turns):
            await asyncio.sleep(0)
        watcher.cancel()
        await asyncio.wait([watcher], timeout=1)
        assert watcher.cancelled(), f"cancelled after {turns} turns of the loop, it went on"
