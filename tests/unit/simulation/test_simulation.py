from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.fleet.placement import Bound
from app.simulation.fleet import FleetShape, SeenFleet, SimulatedFleet, SimulatedWorker
from app.simulation.policies import (
    POLICIES,
    bounded_ring,
    least_loaded,
    least_loaded_of_holders,
    ours,
    rendezvous,
    ring_of_sessions,
    ring_of_voices,
    scored,
)
from app.simulation.simulation import FrontDoors, Offer, Policy, Simulation, moved_by_a_join, workers_needed
from app.simulation.traffic import Traffic, adapter_of, trace_of, voice_of
from app.speech.voices import Voice

SHAPE = FleetShape(workers=8, capacity=8, max_voices=6, cached_adapters=12)
TRAFFIC = Traffic(duration_s=1200, warm_up_s=0, concurrent=45, mean_session_s=60, voices=200, storm=0.3)
CROWDED = replace(TRAFFIC, concurrent=70)
ALL_SEEING = FrontDoors(count=1, refresh_s=0, queue_s=0)
every_policy = pytest.mark.parametrize("name", POLICIES)

doors = st.builds(
    FrontDoors, count=st.integers(1, 5), refresh_s=st.sampled_from([0, 0.5, 20]), queue_s=st.sampled_from([0, 1, 30])
)
shapes = st.builds(
    FleetShape,
    workers=st.integers(3, 6),
    capacity=st.integers(1, 6),
    max_voices=st.integers(1, 4),
    cached_adapters=st.integers(1, 8),
    bandwidth_bytes_per_s=st.sampled_from([1e7, 1e9]),
)
traffics = st.builds(
    Traffic,
    seed=st.integers(0, 99),
    duration_s=st.just(300),
    warm_up_s=st.sampled_from([0, 60]),
    concurrent=st.integers(1, 40),
    mean_session_s=st.sampled_from([10, 60]),
    voices=st.integers(1, 50),
    pattern=st.sampled_from(["steady", "diurnal", "flash-crowd", "bursts"]),
    storm=st.sampled_from([0, 0.5]),
    joins=st.integers(0, 2),
    losses=st.integers(0, 2),
)


def watched(policy: Policy, fleets: list[SimulatedFleet]) -> Policy:
    """The policy, and before each of its decisions a refresh."""

    def decide(seen: SeenFleet, voice: Voice, draw: float) -> Iterator[Offer]:
        for worker in fleets[0].living.values():
            assert 0 <= worker.inflight == sum(worker.active_adapters.values()) <= worker.capacity
            assert len(worker.active_adapters) <= worker.max_voices
            assert worker.active_adapters.keys() <= worker.cached.keys() | worker.loading.keys()
        assert fleets[0].sessions == sum(worker.inflight for worker in fleets[0].living.values())
        assert seen.bound.sessions == sum(worker.inflight for worker in seen.listed)
        assert seen.open == sum(worker.is_open for worker in seen.listed)
        return policy(seen, voice, draw)

    return decide


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(list(POLICIES)), traffics, shapes, doors)
def test_whatever_comes_no_worker_is_filled_over_its_places_or_slots_and_no_session_goes_astray(
    name: str, traffic: Traffic, shape: FleetShape, doors: FrontDoors
) -> None:
    fleets: list[SimulatedFleet] = []
    simulation = Simulation(trace_of(traffic), shape, watched(POLICIES[name], fleets), doors)
    fleets.append(simulation.fleet)
    outcome = simulation.run()
    assert outcome.starts == outcome.refused + outcome.ended + outcome.cut - outcome.moved
    assert outcome.served >= outcome.warm >= 0
    assert outcome.claims >= outcome.served
    assert outcome.claims - outcome.refused_claims == outcome.served
    assert outcome.queued >= outcome.refused or not doors.queue_s
    assert outcome.queued == outcome.refused + len(outcome.room_waits_s) or not doors.queue_s
    assert max(outcome.room_waits_s, default=0) <= doors.queue_s
    assert simulation.fleet.sessions == 0
    assert all(not worker.active_adapters for worker in simulation.fleet.living.values())


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(list(POLICIES)), traffics, shapes)
def test_one_door_that_sees_everything_is_never_refused_a_claim(name: str, traffic: Traffic, shape: FleetShape) -> None:
    outcome = Simulation(trace_of(traffic), shape, POLICIES[name], ALL_SEEING).run()
    assert outcome.refused_claims == 0
    assert outcome.claims == outcome.served


@every_policy
def test_the_same_seed_gives_the_same_outcome(name: str) -> None:
    first, second = (Simulation(trace_of(TRAFFIC), SHAPE, POLICIES[name]).run() for _ in range(2))
    assert first == second


def test_another_seed_gives_another_trace() -> None:
    assert trace_of(TRAFFIC).start_s.tolist() != trace_of(replace(TRAFFIC, seed=1)).start_s.tolist()


@every_policy
def test_no_more_starts_are_warm_than_are_of_a_voice_requested_before(name: str) -> None:
    trace = trace_of(replace(TRAFFIC, concurrent=20))
    outcome = Simulation(trace, SHAPE, POLICIES[name]).run()
    assert outcome.refused == 0
    assert 0 < outcome.warm <= round(trace.requested_before * outcome.starts)
    assert sum(warm for _, warm in outcome.octaves) <= sum(requested for _, requested in trace.octaves)
    assert [served for served, _ in outcome.octaves] == [starts for starts, _ in trace.octaves]


@every_policy
def test_a_crowd_fills_the_fleet_waits_and_is_refused_what_is_too_much(name: str) -> None:
    outcome = Simulation(trace_of(CROWDED), SHAPE, POLICIES[name]).run()
    assert outcome.refused > 0 < outcome.cut
    assert max(sample.concurrent for sample in outcome.samples) > 0.9 * SHAPE.workers * SHAPE.capacity
    assert outcome.queued > outcome.refused
    assert 0 < max(outcome.room_waits_s) <= FrontDoors().queue_s


@every_policy
def test_a_session_that_may_wait_is_refused_less_often(name: str) -> None:
    trace = trace_of(replace(TRAFFIC, concurrent=50))
    patient, hasty = (
        Simulation(trace, SHAPE, POLICIES[name], FrontDoors(queue_s=queue_s)).run() for queue_s in (10, 0)
    )
    assert patient.refused < hasty.refused
    assert not hasty.queued


@every_policy
def test_no_worker_keeps_more_adapters_than_its_cache_takes(name: str) -> None:
    simulation = Simulation(trace_of(TRAFFIC), SHAPE, POLICIES[name])
    simulation.run()
    kept = [len(worker.ready_adapters) for worker in simulation.fleet.living.values()]
    assert max(kept) == SHAPE.cached_adapters


@pytest.fixture
def fleet() -> SimulatedFleet:
    return SimulatedFleet(SHAPE)


@pytest.fixture
def seen(fleet: SimulatedFleet) -> SeenFleet:
    return fleet.open_view()


VOICE = voice_of(7)
ADAPTER = adapter_of(VOICE)
DRAWS = (0.1, 0.3, 0.5, 0.7, 0.9)


def first_choices(policy: Policy, seen: SeenFleet) -> set[str]:
    return {next(policy(seen, VOICE, draw)).worker.id for draw in DRAWS}


def fill(fleet: SimulatedFleet, seen: SeenFleet, worker: SimulatedWorker, sessions: int) -> None:
    for _ in range(sessions):
        fleet.occupy(worker, "another@1")
    seen.refresh()


@pytest.mark.parametrize("policy", [ours, ring_of_voices, bounded_ring])
def test_a_ring_of_voices_sends_all_sessions_of_a_voice_to_one_worker_while_that_has_room(
    seen: SeenFleet, policy: Policy
) -> None:
    assert first_choices(policy, seen) == {next(seen.ring.walk(VOICE.id))}


def test_a_ring_of_sessions_does_not_know_the_voice(seen: SeenFleet) -> None:
    assert len(first_choices(ring_of_sessions, seen)) > 1


def test_a_plain_ring_fills_a_home_to_the_brim_and_a_bounded_one_does_not(
    fleet: SimulatedFleet, seen: SeenFleet
) -> None:
    home, following, *_ = seen.ring.walk(VOICE.id)
    fill(fleet, seen, fleet.by_index[seen.workers[home].index], SHAPE.capacity - 1)
    assert first_choices(ring_of_voices, seen) == {home}
    assert first_choices(bounded_ring, seen) == first_choices(ours, seen) == {following}


def test_the_least_loaded_is_just_that_and_among_equals_anybody(fleet: SimulatedFleet, seen: SeenFleet) -> None:
    assert len(first_choices(least_loaded, seen)) > 1
    for worker in fleet.by_index:
        fill(fleet, seen, worker, 1 if worker.index == 5 else 2)
    assert first_choices(least_loaded, seen) == {"worker-5"}


def holding(fleet: SimulatedFleet, seen: SeenFleet, worker: SimulatedWorker) -> None:
    """The worker speaks with the voice's adapter, and has it."""
    fleet.load(worker, ADAPTER, 1, 0.0)
    fleet.occupy(worker, ADAPTER)
    fleet.loaded(worker, ADAPTER, 0.0)
    seen.refresh()


def test_those_who_route_by_adapter_go_where_it_is_though_others_are_idle(
    fleet: SimulatedFleet, seen: SeenFleet
) -> None:
    holding(fleet, seen, fleet.by_index[3])
    for policy in (least_loaded_of_holders, scored):
        assert first_choices(policy, seen) == {"worker-3"}
    fill(fleet, seen, fleet.by_index[3], SHAPE.capacity - 1)
    assert "worker-3" not in first_choices(least_loaded_of_holders, seen)


def test_a_score_gives_up_the_adapter_where_its_worker_is_that_much_fuller(
    fleet: SimulatedFleet, seen: SeenFleet
) -> None:
    holding(fleet, seen, fleet.by_index[3])
    fill(fleet, seen, fleet.by_index[3], 3)
    assert "worker-3" not in first_choices(scored, seen)
    assert first_choices(least_loaded_of_holders, seen) == {"worker-3"}


def test_a_voice_has_as_many_replicas_as_its_share_of_the_sessions_is_of_the_slots(
    fleet: SimulatedFleet, seen: SeenFleet
) -> None:
    (planned,) = first_choices(rendezvous, seen)
    holding(fleet, seen, fleet.by_index[seen.workers[planned].index])
    for worker in fleet.by_index:
        fill(fleet, seen, worker, 6)
    # Two of fifty sessions would be 2 of 48 slots: the second replica is idle, and goes first.
    (second,) = first_choices(rendezvous, seen)
    assert second != planned


def test_a_view_shows_what_others_did_with_its_next_refresh_and_what_its_own_door_did_at_once(
    fleet: SimulatedFleet, seen: SeenFleet
) -> None:
    worker = fleet.by_index[0]
    fleet.load(worker, ADAPTER, 1, 0.0)
    fleet.occupy(worker, ADAPTER)
    seen.occupy(seen.by_index[1], ADAPTER)
    assert [seen.by_index[i].inflight for i in (0, 1)] == [0, 1]
    assert not seen.holders(ADAPTER)
    seen.refresh()
    assert seen.by_index[0].inflight == 1
    assert [holder.id for holder in seen.holders(ADAPTER)] == ["worker-0"]


def test_a_lost_worker_is_on_a_doors_ring_until_its_next_refresh(fleet: SimulatedFleet, seen: SeenFleet) -> None:
    home = next(seen.ring.walk(VOICE.id))
    fleet.lose(fleet.by_index[seen.workers[home].index], 0.0)
    assert first_choices(ours, seen) == {home}
    seen.refresh()
    assert home not in seen.workers
    assert first_choices(ours, seen) == {next(seen.ring.walk(VOICE.id))} != {home}


def over_the_bound(doors: FrontDoors) -> tuple[int, int]:
    """Of a fleet with slots enough: the starts, and the sessions by which some worker was over its bound, at most."""
    excess = 0

    def policy(seen: SeenFleet, voice: Voice, draw: float) -> Iterator[Offer]:
        nonlocal excess
        fleet = simulation.fleet
        for worker in fleet.living.values():
            bound = Bound(fleet.sessions, sum(worker.capacity for worker in fleet.living.values())).of(worker)
            excess = max(excess, worker.inflight - bound)
        return ours(seen, voice, draw)

    steady = replace(TRAFFIC, joins=0, losses=0, mean_session_s=20)
    simulation = Simulation(trace_of(steady), replace(SHAPE, max_voices=SHAPE.capacity), policy, doors)
    return simulation.run().starts, excess


def test_old_views_raise_no_worker_above_the_bound_by_more_than_what_the_fleet_lost_meanwhile() -> None:
    _, seeing = over_the_bound(ALL_SEEING)
    starts, blind = over_the_bound(FrontDoors(count=8, refresh_s=5))
    assert starts > 500
    assert blind <= seeing + 1


def test_more_doors_with_older_views_have_more_claims_refused() -> None:
    few, many = (
        Simulation(trace_of(TRAFFIC), SHAPE, ours, FrontDoors(count=count, refresh_s=refresh_s)).run()
        for count, refresh_s in ((2, 0.1), (8, 5))
    )
    assert few.refused_claims < many.refused_claims


def test_ours_has_adapters_at_hand_more_often_than_the_peers_and_loads_fewer_bytes() -> None:
    shape = FleetShape(workers=40)
    trace = trace_of(Traffic(duration_s=1200, concurrent=40 * 16 * 0.7, voices=4_000))
    found = {name: Simulation(trace, shape, policy).run() for name, policy in POLICIES.items()}
    ranked = sorted(found, key=lambda name: found[name].cold_bytes)
    assert ranked[0] == "ours" == max(found, key=lambda name: found[name].warm_rate)


def test_a_worker_that_is_lost_takes_its_adapters_with_it_and_its_sessions_go_on_elsewhere() -> None:
    outcome = Simulation(trace_of(replace(TRAFFIC, concurrent=20, joins=0)), SHAPE, ours).run()
    assert outcome.losses == 2
    assert outcome.moved == outcome.cut > 0


def test_a_join_moves_about_its_share() -> None:
    assert 0.5 / 9 < moved_by_a_join(SHAPE) < 1.6 / 9


def test_the_fleet_that_is_needed_refuses_little_and_a_smaller_one_more() -> None:
    trace = trace_of(TRAFFIC)
    needed = workers_needed(trace, SHAPE, ours)
    enough, too_few = (Simulation(trace, replace(SHAPE, workers=n), ours).run() for n in (needed, needed - 1))
    assert enough.refused_rate <= 0.01 < too_few.refused_rate
