from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.models import AdapterVersion, ModelCard, Voice, Worker, WorkerState
from app.core.placement import Bound, candidates, has_room

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


@st.composite
def busy_fleets(draw: st.DrawFn) -> list[Worker]:
    """Fleets of any load whose adapters are active, ready, both or neither, and never over capacity or slots."""
    adapters = [f"{name}@1" for name in "abcdef"]
    fleet: list[Worker] = []
    for index in range(draw(st.integers(1, 6))):
        capacity, max_voices = draw(st.integers(1, 20)), draw(st.integers(1, 4))
        inflight = draw(st.integers(0, capacity))
        fleet.append(
            worker(
                f"w{index}",
                capacity=capacity,
                max_voices=max_voices,
                inflight=inflight,
                background=draw(st.integers(0, capacity - inflight)),
                active_adapters=draw(st.frozensets(st.sampled_from(adapters), max_size=min(inflight, max_voices))),
                ready_adapters=draw(st.frozensets(st.sampled_from(adapters))),
            )
        )
    return fleet


known_voices = st.sampled_from("abcdefgh").map(voice)


@given(busy_fleets(), known_voices, st.randoms(), st.booleans())
def test_front_doors_that_see_the_same_fleet_agree_without_talking(fleet, wanted, random, background):
    told = [(c.worker.id, c.reason) for c in candidates(fleet, wanted, background=background)]
    elsewhere = random.sample(fleet, len(fleet))
    assert [(c.worker.id, c.reason) for c in candidates(elsewhere, wanted, background=background)] == told


@given(busy_fleets(), known_voices, st.booleans())
def test_everybody_with_room_is_offered_once_and_nobody_else(fleet, wanted, background):
    offered = [c.worker.id for c in candidates(fleet, wanted, background=background)]
    assert sorted(offered) == sorted(w.id for w in fleet if has_room(w, wanted, background=background))


@given(busy_fleets(), known_voices)
def test_nobody_over_its_bound_is_asked_while_another_within_its_own_has_a_free_place(fleet, wanted):
    bound = Bound(sum(w.inflight for w in fleet), sum(w.capacity for w in fleet))
    offered = [c.worker for c in candidates(fleet, wanted) if has_room(c.worker, wanted, background=True)]
    within = [w.inflight < bound.of(w) for w in offered]
    assert within == sorted(within, reverse=True)


@given(st.lists(st.integers(1, 12), min_size=1, max_size=5), st.lists(st.sampled_from("abcdefgh"), max_size=60))
def test_sessions_placed_one_after_another_are_never_over_the_bound_nor_need_more_slots_than_there_are(sizes, wanted):
    fleet = {f"w{i}": worker(f"w{i}", capacity=size, max_voices=8) for i, size in enumerate(sizes)}
    for placed, name in enumerate(wanted[: sum(sizes)]):
        bound = Bound(placed, sum(sizes))
        chosen = next(candidates(fleet.values(), voice(name))).worker
        assert chosen.inflight < bound.of(chosen) <= chosen.capacity
        there = {"inflight": chosen.inflight + 1, "active_adapters": chosen.active_adapters | {f"{name}@1"}}
        fleet[chosen.id] = chosen.model_copy(update=there)
        assert len(fleet[chosen.id].active_adapters) <= chosen.max_voices


@given(st.integers(1, 1_000), st.lists(st.integers(1, 50), min_size=1, max_size=8))
def test_there_is_always_somebody_within_the_bound_until_the_fleet_is_full(load, sizes):
    fleet = [worker(f"w{i}", capacity=size) for i, size in enumerate(sizes)]
    left = load % sum(sizes)
    for index, w in enumerate(fleet):
        taken = min(left, w.capacity)
        fleet[index], left = w.model_copy(update={"inflight": taken}), left - taken
    bound = Bound(load % sum(sizes), sum(sizes))
    assert any(w.inflight < bound.of(w) for w in fleet)


def test_a_worker_that_joins_takes_about_its_share_of_the_voices_and_no_other_voice_moves():
    fleet = [worker(f"w{i}") for i in range(19)]
    wanted = [voice(f"voice-{i}") for i in range(2_000)]
    before = [next(candidates(fleet, v)).worker.id for v in wanted]
    after = [next(candidates([*fleet, worker("w19")], v)).worker.id for v in wanted]
    moved = [new for old, new in zip(before, after, strict=True) if old != new]
    assert set(moved) == {"w19"}
    assert len(moved) < 1.5 * 2_000 / 20


def test_a_busy_home_hands_over_to_the_next_before_it_is_full():
    fleet, wanted = [worker(f"w{i}", capacity=20) for i in range(4)], voice("v")
    home, following, *_ = order(fleet, wanted)
    busy = [w.model_copy(update={"inflight": 6 if w.id == home else 3}) for w in fleet]  # the bound: 1.25 × 16 ÷ 4
    assert order(busy, wanted)[0] == following
    assert [c.reason for c in candidates(busy, wanted)] == ["next"] * 3 + ["over"]


def test_at_low_traffic_a_quarter_of_a_worker_s_places_is_its_home_s_to_fill():
    fleet, wanted = [worker(f"w{i}", capacity=20) for i in range(4)], voice("v")
    home = order(fleet, wanted)[0]
    busy = [w.model_copy(update={"inflight": 4}) if w.id == home else w for w in fleet]
    assert order(busy, wanted)[0] == home


def test_of_several_that_have_the_adapter_the_least_loaded_is_asked_first_whoever_is_home():
    fleet, wanted = [worker(f"w{i}", capacity=20, max_voices=9) for i in range(3)], voice("v")
    home, following, last = order(fleet, wanted)
    loads = {home: 4, following: 5, last: 2}
    warm = [w.model_copy(update={"inflight": loads[w.id], "ready_adapters": frozenset({"v@1"})}) for w in fleet]
    assert [(c.worker.id, c.reason) for c in candidates(warm, wanted)][:2] == [(last, "warm"), (home, "home")]


def test_a_worker_that_has_the_adapter_goes_before_a_home_that_must_load_it():
    fleet, wanted = [worker("w1"), worker("w2")], voice("v")
    home, other = order(fleet, wanted)
    warm = [w.model_copy(update={"ready_adapters": frozenset({"v@1"})}) if w.id == other else w for w in fleet]
    assert order(warm, wanted) == [other, home]


def test_no_second_copy_is_loaded_while_whoever_loads_the_first_is_within_its_bound():
    fleet, wanted = [worker(f"w{i}", capacity=20) for i in range(2)], voice("v")
    home, other = order(fleet, wanted)
    awaited = {"inflight": 4, "active_adapters": frozenset({"v@1"})}
    loading = [w.model_copy(update=awaited) if w.id == other else w for w in fleet]
    assert [(c.worker.id, c.reason) for c in candidates(loading, wanted)] == [(other, "loading"), (home, "home")]
    crowded = [w.model_copy(update={**awaited, "inflight": 12}) if w.id == other else w for w in fleet]
    assert order(crowded, wanted) == [home, other]


def test_where_slots_are_scarce_a_voice_goes_where_it_has_one_already():
    fleet, wanted = [worker(f"w{i}", capacity=20, max_voices=4) for i in range(2)], voice("v")
    ready = {"ready_adapters": frozenset({"v@1"})}
    speaking = fleet[0].model_copy(update={**ready, "inflight": 4, "active_adapters": frozenset({"v@1"})})
    resting = fleet[1].model_copy(update={**ready, "inflight": 3, "active_adapters": frozenset("abc")})
    assert order([speaking, resting], wanted) == [speaking.id, resting.id]
