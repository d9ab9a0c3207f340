from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.fleet.placement import Bound, Candidate, PlacementIndex, candidates, has_room, share_of
from app.fleet.worker import Worker, WorkerState
from app.speech.voices import AdapterVersion, ModelCard, Voice

CARD = ModelCard(
    name="standin", stand_in=True, languages=("en",), voices=("slt",), sample_rate_hz=24_000, tokens_per_s=82.03
)


def worker(id: str, **fields: object) -> Worker:
    values = {"epoch": 1, "address": "ws://x", "model": CARD, "state": "active", "capacity": 4, "max_voices": 2}
    return Worker.model_validate({"id": id, **values, **fields})


def adapter(id: str, version: int = 1) -> AdapterVersion:
    return AdapterVersion(voice_id=id, version=version, lora_id=1, uri="file:///a/", sha256={}, rank=16)


def voice(id: str, *, cloned: bool = True) -> Voice:
    return Voice(id=id, name=id, model="standin", adapter=adapter(id) if cloned else None)


def order(workers: list[Worker], wanted: Voice) -> list[str]:
    return [candidate.worker.id for candidate in candidates(workers, wanted)]


fleets = st.lists(st.integers(1, 16), min_size=1, max_size=6).map(
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
def test_load_leaves_out_who_is_over_the_bound_and_never_turns_the_ring(fleet, named):
    wanted = voice(named.id, cloned=False)
    before = order(fleet, wanted)
    busy = [w.model_copy(update={"inflight": w.capacity - 1}) for w in fleet]
    offered = order(busy, wanted)
    assert offered
    assert offered == [id for id in before if id in offered]


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
def test_background_load_is_no_load_to_interactive_sessions(fleet, wanted):
    before = order(fleet, wanted)
    busy = [w.model_copy(update={"background": w.capacity, "background_adapters": frozenset("ab")}) for w in fleet]
    assert order(busy, wanted) == before
    assert list(candidates(busy, wanted, background=True)) == []


@given(fleets, voices)
def test_no_session_yields_while_another_worker_has_a_free_place(fleet, wanted):
    home, *rest = order(fleet, wanted)
    narrating = [w.model_copy(update={"background": w.capacity}) if w.id == home else w for w in fleet]
    offered = list(candidates(narrating, wanted))
    assert [c.worker.id for c in offered] == [*rest, home]
    assert [c.reason for c in offered] == ["next"] * len(rest) + ["home"]


@given(fleets, voices, st.sampled_from(["ready_adapters", "active_adapters", "background_adapters"]))
def test_a_home_that_has_the_adapter_keeps_its_turn_although_a_session_must_yield(fleet, wanted, where):
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
    expected = [(c.worker.id, c.reason) for c in candidates(fleet, wanted, background=background)]
    elsewhere = random.sample(fleet, len(fleet))
    assert [(c.worker.id, c.reason) for c in candidates(elsewhere, wanted, background=background)] == expected


@given(busy_fleets(), known_voices, st.booleans())
def test_all_with_room_within_their_bound_are_offered_once_and_where_there_are_none_all_with_room(
    fleet, wanted, background
):
    def load(w: Worker) -> int:
        return w.inflight + (w.background if background else 0)

    offered = [c.worker.id for c in candidates(fleet, wanted, background=background)]
    bound = Bound(sum(load(w) for w in fleet), sum(w.capacity for w in fleet))
    roomy = [w for w in fleet if has_room(w, wanted, background=background)]
    within = [w for w in roomy if load(w) < bound.of(w)]
    assert sorted(offered) == sorted(w.id for w in within or roomy)


@given(busy_fleets(), known_voices)
def test_no_worker_over_its_bound_is_tried_while_another_within_its_own_has_a_free_place(fleet, wanted):
    bound = Bound(sum(w.inflight for w in fleet), sum(w.capacity for w in fleet))
    offered = [c.worker for c in candidates(fleet, wanted) if has_room(c.worker, wanted, background=True)]
    within = [w.inflight < bound.of(w) for w in offered]
    assert all(within) or not any(within)


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
def test_there_is_always_a_worker_within_the_bound_until_the_fleet_is_full(load, sizes):
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
    assert [c.reason for c in candidates(busy, wanted)] == ["next"] * 3


def test_a_worker_over_its_bound_is_tried_where_no_other_has_a_slot_for_the_voice():
    wanted = voice("v")
    speaking = worker("w0", capacity=20, inflight=15, active_adapters={"v@1"}, ready_adapters={"v@1"})
    taken = [worker(f"w{i}", capacity=20, inflight=2, active_adapters={"a@1", "b@1"}) for i in (1, 2)]
    offered = list(candidates([speaking, *taken], wanted))
    assert [(c.worker.id, c.reason, c.bound) for c in offered] == [("w0", "over", 20)]


def test_the_loser_of_a_race_for_places_within_the_bound_is_not_let_over_it():
    index, wanted = PlacementIndex(), voice("slt", cloned=False)
    fleet = [worker(f"w{i}", capacity=8) for i in range(2)]
    for w in fleet:
        index.put(w)
    reasons = []
    for candidate in index.candidates(wanted):  # each claim is refused: another front door had the same index
        reasons.append(candidate.reason)
        index.put(candidate.worker.model_copy(update={"inflight": candidate.bound}))
    assert reasons == [candidate.reason for candidate in index.candidates(wanted)] == ["home", "next"]


def test_at_low_traffic_a_quarter_of_a_worker_s_places_is_its_home_s_to_fill():
    fleet, wanted = [worker(f"w{i}", capacity=20) for i in range(4)], voice("v")
    home = order(fleet, wanted)[0]
    speaking = {"inflight": 4, "ready_adapters": frozenset({"v@1"})}
    busy = [w.model_copy(update=speaking) if w.id == home else w for w in fleet]
    assert order(busy, wanted)[0] == home


def test_an_adapter_is_loaded_by_the_first_of_its_walk_that_is_about_as_empty_as_those_near_it():
    fleet, wanted = [worker(f"w{i}", capacity=20, max_voices=20) for i in range(5)], voice("v")
    home, second, third, *others = order(fleet, wanted)

    def with_sessions(**inflight: int) -> list[Worker]:
        return [w.model_copy(update={"inflight": inflight.get(w.id, 0)}) for w in fleet]

    assert order(with_sessions(**{home: 4, second: 3}), wanted) == [third, home, second, *others]
    a_little_fuller = with_sessions(**{home: 2, second: 1})
    assert order(a_little_fuller, wanted) == [home, second, third, *others]
    built_in = voice("v", cloned=False)
    assert order(with_sessions(**{home: 4}), built_in) == [home, second, third, *others]


def test_of_several_that_have_the_adapter_the_least_loaded_is_tried_first_whichever_is_home():
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


def test_no_second_copy_is_loaded_while_the_worker_that_loads_the_first_is_within_its_bound():
    fleet, wanted = [worker(f"w{i}", capacity=20) for i in range(2)], voice("v")
    home, other = order(fleet, wanted)
    awaited = {"inflight": 4, "active_adapters": frozenset({"v@1"})}
    loading = [w.model_copy(update=awaited) if w.id == other else w for w in fleet]
    assert [(c.worker.id, c.reason) for c in candidates(loading, wanted)] == [(other, "loading"), (home, "home")]
    crowded = [w.model_copy(update={**awaited, "inflight": 12}) if w.id == other else w for w in fleet]
    assert order(crowded, wanted) == [home]


def test_where_slots_are_scarce_a_voice_goes_where_it_has_one_already():
    fleet, wanted = [worker(f"w{i}", capacity=20, max_voices=4) for i in range(2)], voice("v")
    ready = {"ready_adapters": frozenset({"v@1"})}
    speaking = fleet[0].model_copy(update={**ready, "inflight": 4, "active_adapters": frozenset({"v@1"})})
    resting = fleet[1].model_copy(update={**ready, "inflight": 3, "active_adapters": frozenset("abc")})
    assert order([speaking, resting], wanted) == [speaking.id, resting.id]


def listed(offered: Iterator[Candidate[Worker]]) -> list[tuple[str, str, int]]:
    return [(candidate.worker.id, candidate.reason, candidate.bound) for candidate in offered]


@given(st.lists(st.tuples(busy_fleets(), st.booleans()), min_size=1, max_size=5), known_voices, st.booleans())
def test_an_index_offers_what_its_workers_are_whatever_they_were_before(history, wanted, background):
    index, there = PlacementIndex(), {}
    for fleet, leave in history:
        for w in fleet:
            index.put(w)
            there[w.id] = w
        if leave and len(there) > 1:
            gone = sorted(there)[0]
            index.remove(gone)
            del there[gone]
        assert listed(index.candidates(wanted, background=background)) == listed(
            candidates(there.values(), wanted, background=background)
        )


@given(busy_fleets(), known_voices, st.randoms())
def test_counting_sessions_one_by_one_comes_to_the_same_as_looking_again(fleet, wanted, random):
    index, there = PlacementIndex(), {w.id: w for w in fleet}
    for w in fleet:
        index.put(w)
    for _ in range(8):
        chosen = there[random.choice(sorted(there))]
        more = {"inflight": max(0, chosen.inflight + random.choice([-1, 1]))}
        if random.random() < 0.5:
            more["active_adapters"] = chosen.active_adapters ^ {f"{random.choice('abcdef')}@1"}
        if random.random() < 0.2:
            more["state"] = random.choice([WorkerState.DRAINING, WorkerState.ACTIVE])
        there[chosen.id] = chosen.model_copy(update=more)
        index.put(there[chosen.id])
    assert listed(index.candidates(wanted)) == listed(candidates(there.values(), wanted))


@given(busy_fleets(), known_voices, st.booleans())
def test_a_candidate_brings_the_bound_it_is_offered_under(fleet, wanted, background):
    sessions = sum(w.inflight + (w.background if background else 0) for w in fleet)
    bound = Bound(sessions, sum(w.capacity for w in fleet))
    for candidate in candidates(fleet, wanted, background=background):
        over = candidate.reason == "over"
        assert candidate.bound == (candidate.worker.capacity if over else bound.of(candidate.worker))
        load = candidate.worker.inflight + (candidate.worker.background if background else 0)
        assert load < candidate.bound


@given(st.lists(st.integers(1, 12), min_size=2, max_size=5), st.lists(st.sampled_from("abcdefgh"), max_size=60))
def test_front_doors_that_have_not_seen_each_others_claims_put_no_worker_over_its_bound(sizes, wanted):
    """Two front doors, one old index: the registry counts, and refuses what would be over the bound it gets."""
    seen = [worker(f"w{i}", capacity=size, max_voices=8) for i, size in enumerate(sizes)]
    indexes = [PlacementIndex(), PlacementIndex()]
    held = {w.id: 0 for w in seen}
    for index in indexes:
        for w in seen:
            index.put(w)
    for number, name in enumerate(wanted):
        for candidate in indexes[number % 2].candidates(voice(name)):
            if candidate.reason != "over" and held[candidate.worker.id] < candidate.bound:
                held[candidate.worker.id] += 1
                assert held[candidate.worker.id] <= Bound(sum(held.values()), sum(sizes)).of(candidate.worker)
                break


@given(fleets, st.lists(st.text("abcd0123", min_size=1, max_size=6), min_size=1, max_size=12, unique=True))
def test_every_wanted_voice_is_in_the_share_of_its_home_and_of_no_other(fleet, names):
    wanted = [adapter(name) for name in names]
    for joining in fleet:
        share = share_of(joining, fleet, wanted)
        homes = [next(candidates(fleet, voice(name))).worker.id for name in names]
        assert share == [version for version, home in zip(wanted, homes, strict=True) if home == joining.id]


def test_a_voice_that_several_workers_speak_with_belongs_to_as_many():
    fleet, wanted = [worker(f"w{i}") for i in range(5)], voice("v")
    first, second, third, *_ = order(fleet, wanted)
    speaking = {first: {"active_adapters": {"v@1"}, "inflight": 1}, third: {"active_adapters": {"v@1"}, "inflight": 1}}
    busy = [worker(w.id, **speaking.get(w.id, {})) for w in fleet]
    sharing = [w.id for w in busy if share_of(w, busy, [adapter("v")])]
    assert sorted(sharing) == sorted([first, second])


def test_a_worker_that_drains_or_speaks_another_language_leaves_its_share_to_those_that_stay():
    wanted = [adapter(f"v{i}") for i in range(20)]
    joining, other = worker("w1"), CARD.model_copy(update={"name": "orpheus"})
    others = [worker("w2", state="draining"), worker("w3", model=other)]
    assert share_of(joining, others, wanted) == wanted
    assert len(share_of(joining, [*others, worker("w4", state="starting")], wanted)) < 20


def test_of_a_voice_with_two_versions_the_later_is_warmed():
    old, new = adapter("v"), adapter("v", version=2)
    assert share_of(worker("w1"), [], [old, new]) == [new]
