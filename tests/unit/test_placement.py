from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.models import AdapterVersion, ModelCard, Voice, Worker, WorkerState
from app.core.placement import candidates, has_room

CARD = ModelCard(
    name="standin", stand_in=True, languages=("en",), voices=("slt",), sample_rate_hz=24_000, tokens_per_s=82.03
)


def worker(id: str, **fields: object) -> Worker:
    values = {"epoch": 1, "address": "ws://x", "model": CARD, "state": "active", "capacity": 4, "max_voices": 2}
    return Worker.model_validate({"id": id, **values, **fields})


def voice(id: str, *, cloned: bool = True) -> Voice:
    adapter = AdapterVersion(voice_id=id, version=1, lora_id=1, uri="file:///a/", sha256={}, rank=16)
    return Voice(id=id, name=id, model="standin", adapter=adapter if cloned else None)


def order(workers: list[Worker], wanted: Voice) -> list[str]:
    return [candidate.worker.id for candidate in candidates(workers, wanted)]


fleets = st.lists(st.integers(1, 100), min_size=1, max_size=6).map(
    lambda capacities: [worker(f"w{i}", capacity=capacity) for i, capacity in enumerate(capacities)]
)
voices = st.text("abcdefgh0123", min_size=1, max_size=8).map(voice)


@given(fleets, voices, st.randoms())
def test_the_order_depends_on_the_voice_and_the_fleet_and_not_on_how_the_fleet_is_listed(fleet, wanted, random):
    shuffled = random.sample(fleet, len(fleet))
    assert order(fleet, wanted) == order(shuffled, wanted)


@given(fleets, voices)
def test_an_empty_fleet_offers_every_worker_once_and_its_first_as_home(fleet, wanted):
    offered = list(candidates(fleet, wanted))
    assert sorted(c.worker.id for c in offered) == sorted(w.id for w in fleet)
    assert [c.reason for c in offered] == ["home"] + ["next"] * (len(fleet) - 1)


@given(fleets, voices)
def test_load_never_turns_the_ring(fleet, wanted):
    before = order(fleet, wanted)
    busy = [w.model_copy(update={"inflight": w.capacity - 1}) for w in fleet]
    assert order(busy, wanted) == before


@given(fleets, voices)
def test_a_full_home_is_passed_over_for_the_next_on_the_ring(fleet, wanted):
    home, *rest = order(fleet, wanted)
    full = [w.model_copy(update={"inflight": w.capacity}) if w.id == home else w for w in fleet]
    offered = list(candidates(full, wanted))
    assert [c.worker.id for c in offered] == rest
    assert all(c.reason == "next" for c in offered)


@given(fleets, voices, st.integers(0, 5))
def test_a_worker_that_leaves_moves_only_the_voices_it_had(fleet, wanted, index):
    leaving = fleet[index % len(fleet)]
    staying = [w for w in fleet if w is not leaving]
    assert order(staying, wanted) == [id for id in order(fleet, wanted) if id != leaving.id]


@pytest.mark.parametrize("state", [WorkerState.STARTING, WorkerState.DRAINING])
def test_only_active_workers_are_on_the_ring(state):
    assert order([worker("w1", state=state), worker("w2")], voice("v")) == ["w2"]


def test_each_model_has_a_ring_of_its_own():
    other = CARD.model_copy(update={"name": "orpheus"})
    assert order([worker("w1", model=other), worker("w2")], voice("v")) == ["w2"]


def test_no_worker_means_no_candidate():
    assert order([], voice("v")) == []


def test_a_worker_whose_lora_slots_are_taken_has_room_for_the_voices_in_them_and_for_built_in_ones_only():
    taken = worker("w1", inflight=2, active_adapters={"a@1", "b@1"})
    assert has_room(taken, voice("a"))
    assert has_room(taken, voice("slt", cloned=False))
    assert not has_room(taken, voice("c"))


def test_another_version_of_a_voice_needs_a_slot_of_its_own():
    taken = worker("w1", active_adapters={"a@2", "b@1"})
    assert not has_room(taken, voice("a"))


@given(fleets, voices)
def test_background_load_is_no_load_to_those_who_listen(fleet, wanted):
    before = order(fleet, wanted)
    busy = [w.model_copy(update={"background": w.capacity, "background_adapters": frozenset("ab")}) for w in fleet]
    assert order(busy, wanted) == before
    assert list(candidates(busy, wanted, background=True)) == []


@given(fleets, voices)
def test_nobody_makes_way_while_another_worker_has_a_free_place(fleet, wanted):
    home, *rest = order(fleet, wanted)
    narrating = [w.model_copy(update={"background": w.capacity}) if w.id == home else w for w in fleet]
    offered = list(candidates(narrating, wanted))
    assert [c.worker.id for c in offered] == [*rest, home]
    assert [c.reason for c in offered] == ["next"] * len(rest) + ["home"]


@given(fleets, voices, st.sampled_from(["ready_adapters", "active_adapters", "background_adapters"]))
def test_a_home_that_has_the_adapter_keeps_its_turn_although_somebody_must_make_way(fleet, wanted, where):
    before = order(fleet, wanted)
    there = {"background": 100, where: frozenset({wanted.adapter.name})}
    assert order([w.model_copy(update=there) if w.id == before[0] else w for w in fleet], wanted) == before


def test_a_slot_that_only_narrations_pin_is_left_to_them_while_another_worker_has_a_free_one():
    fleet, wanted = [worker("w1"), worker("w2")], voice("v")
    home, other = order(fleet, wanted)
    pinned = {"background": 2, "background_adapters": frozenset({"a@1", "b@1"})}
    assert order([w.model_copy(update=pinned) if w.id == home else w for w in fleet], wanted) == [other, home]


def test_a_background_session_needs_a_place_and_a_slot_beside_everybody():
    taken = worker("w1", inflight=1, background=2, active_adapters={"a@1"}, background_adapters={"b@1"})
    assert has_room(taken, voice("b"), background=True)
    assert has_room(taken, voice("slt", cloned=False), background=True)
    assert not has_room(taken, voice("c"), background=True)
    assert has_room(taken, voice("c"))
    fuller = taken.model_copy(update={"inflight": 2})
    assert not has_room(fuller, voice("b"), background=True)
    assert has_room(fuller, voice("b"))


def test_voices_spread_over_workers_by_their_capacity():
    fleet = [worker("small", capacity=8), worker("big", capacity=24)]
    homes = Counter(order(fleet, voice(f"voice-{i}"))[0] for i in range(4_000))
    assert 2.2 < homes["big"] / homes["small"] < 4.2


def test_equal_workers_have_about_equally_many_voices():
    fleet = [worker(f"w{i}") for i in range(4)]
    homes = Counter(order(fleet, voice(f"voice-{i}"))[0] for i in range(4_000))
    assert max(homes.values()) < 1.4 * 1_000
