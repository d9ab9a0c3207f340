from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest

from app.core.models import Voice
from app.core.placement import Bound
from app.core.policies import POLICIES, bounded_ring, least_loaded, ours, ring_of_sessions, ring_of_voices
from app.core.simulation import (
    FleetShape,
    SimulatedFleet,
    SimulatedWorker,
    Simulation,
    Traffic,
    moved_by_a_join,
    trace_of,
    workers_needed,
)
from app.simulate import simulate

SHAPE = FleetShape(workers=8, capacity=8, max_voices=6, cached_adapters=12)
TRAFFIC = Traffic(duration_s=1200, warm_up_s=0, concurrent=45, mean_session_s=60, voices=200, storm=0.3)
every_policy = pytest.mark.parametrize("name", POLICIES)


def watched(chosen: list[tuple[SimulatedWorker, int, set[str]]], name: str):
    """The policy of this name, that notes each worker it chose, its sessions and its voices before."""

    def policy(fleet: SimulatedFleet, voice: Voice, draw: float) -> SimulatedWorker | None:
        worker = POLICIES[name](fleet, voice, draw)
        if worker is not None:
            chosen.append((worker, worker.inflight, {*worker.active_adapters, f"{voice.id}@1"}))
        return worker

    return policy


@every_policy
def test_the_same_seed_gives_the_same_outcome(name):
    first, second = (Simulation(trace_of(TRAFFIC), SHAPE, POLICIES[name]).run() for _ in range(2))
    assert first == second


def test_another_seed_gives_another_trace():
    assert trace_of(TRAFFIC).start_s.tolist() != trace_of(replace(TRAFFIC, seed=1)).start_s.tolist()


@every_policy
def test_no_more_starts_are_warm_than_are_of_a_voice_heard_before(name):
    trace = trace_of(TRAFFIC)
    outcome = Simulation(trace, SHAPE, POLICIES[name]).run()
    assert outcome.warm <= round(trace.heard_before * outcome.starts)


@every_policy
def test_every_session_ends_or_is_refused_or_is_lost_with_its_worker(name):
    simulation = Simulation(trace_of(replace(TRAFFIC, concurrent=70)), SHAPE, POLICIES[name])
    outcome = simulation.run()
    assert outcome.refused > 0 < outcome.cut
    assert outcome.starts == outcome.refused + outcome.ended + outcome.cut - outcome.moved
    assert outcome.starts == outcome.refused + outcome.warm + len(outcome.waits_s)
    assert simulation.fleet.sessions == 0
    assert all(not w.active_adapters and not w.sessions for w in simulation.fleet.workers.values())


@every_policy
def test_no_worker_ever_has_more_sessions_or_voices_than_it_can(name):
    chosen: list[tuple[SimulatedWorker, int, set[str]]] = []
    Simulation(trace_of(replace(TRAFFIC, concurrent=70)), SHAPE, watched(chosen, name)).run()
    assert max(inflight for _, inflight, _ in chosen) == SHAPE.capacity - 1
    assert max(len(voices) for _, _, voices in chosen) == SHAPE.max_voices


@every_policy
def test_no_worker_keeps_more_adapters_than_its_cache_takes(name):
    simulation = Simulation(trace_of(TRAFFIC), SHAPE, POLICIES[name])
    simulation.run()
    kept = [len(worker.ready_adapters) for worker in simulation.fleet.workers.values()]
    assert max(kept) == SHAPE.cached_adapters
    for adapter, holders in simulation.fleet.holders.items():
        assert all(adapter in worker.ready_adapters for worker in holders.values())


def voices_of(policy, fleet: SimulatedFleet, voice: Voice, draws=(0.1, 0.4, 0.9)) -> list[str]:
    found = [policy(fleet, voice, draw) for draw in draws]
    return [worker.id for worker in found if worker]


@pytest.fixture
def fleet() -> SimulatedFleet:
    return SimulatedFleet(SHAPE)


@pytest.fixture
def voice() -> Voice:
    adapter = {"voice_id": "v", "version": 1, "lora_id": 1, "uri": "file:///a/", "sha256": {}, "rank": 16}
    return Voice.model_validate({"id": "v", "name": "v", "model": "simulated", "adapter": adapter})


def fill(fleet: SimulatedFleet, worker: SimulatedWorker, sessions: int) -> None:
    for _ in range(sessions):
        fleet.occupy(worker, "another@1")


@pytest.mark.parametrize("policy", [ours, ring_of_voices, bounded_ring])
def test_a_ring_of_voices_sends_all_sessions_of_a_voice_to_one_worker_while_that_has_room(fleet, voice, policy):
    assert voices_of(policy, fleet, voice) == [next(fleet.ring.walk("v"))] * 3


def test_a_ring_of_sessions_does_not_know_the_voice(fleet, voice):
    assert len(set(voices_of(ring_of_sessions, fleet, voice, draws=(0.1, 0.3, 0.5, 0.7, 0.9)))) > 1


def test_a_plain_ring_fills_a_home_to_the_brim_and_a_bounded_one_does_not(fleet, voice):
    home, following, *_ = fleet.ring.walk("v")
    fill(fleet, fleet.workers[home], SHAPE.capacity - 1)
    assert voices_of(ring_of_voices, fleet, voice) == [home] * 3
    assert voices_of(bounded_ring, fleet, voice) == voices_of(ours, fleet, voice) == [following] * 3


def test_the_least_loaded_is_just_that(fleet, voice):
    for worker in fleet.listed:
        fill(fleet, worker, 1 if worker.index == 5 else 2)
    assert voices_of(least_loaded, fleet, voice) == ["worker-5"] * 3


def test_ours_is_never_over_the_bound_while_slots_are_plenty():
    over: list[str] = []

    def policy(fleet: SimulatedFleet, voice: Voice, draw: float) -> SimulatedWorker | None:
        worker = ours(fleet, voice, draw)
        if worker is not None and worker.inflight >= Bound(fleet.sessions, fleet.capacity).of(worker):
            over.append(worker.id)
        return worker

    outcome = Simulation(trace_of(TRAFFIC), replace(SHAPE, max_voices=SHAPE.capacity), policy).run()
    assert outcome.starts > 500
    assert not over


def test_ours_has_adapters_at_hand_more_often_than_the_peers_and_loads_fewer_bytes():
    shape = FleetShape(workers=40)
    trace = trace_of(Traffic(duration_s=1200, concurrent=40 * 16 * 0.7, voices=4_000))
    found = {name: Simulation(trace, shape, policy).run() for name, policy in POLICIES.items()}
    ranked = sorted(found, key=lambda name: found[name].cold_bytes)
    assert ranked[0] == "ours" == max(found, key=lambda name: found[name].warm_rate)


def test_a_worker_that_is_lost_takes_its_adapters_with_it_and_its_sessions_go_on_elsewhere():
    outcome = Simulation(trace_of(replace(TRAFFIC, concurrent=20, joins=0)), SHAPE, ours).run()
    assert outcome.losses == 2
    assert outcome.moved == outcome.cut > 0


def test_a_join_moves_about_its_share():
    assert 0.5 / 9 < moved_by_a_join(SHAPE) < 1.6 / 9


def test_the_fleet_that_is_needed_refuses_little_and_a_smaller_one_more():
    trace = trace_of(TRAFFIC)
    needed = workers_needed(trace, SHAPE, ours)
    enough, too_few = (Simulation(trace, replace(SHAPE, workers=n), ours).run() for n in (needed, needed - 1))
    assert enough.refused_rate <= 0.01 < too_few.refused_rate


def test_the_table_and_the_file_tell_the_same_of_every_policy(tmp_path: Path):
    out = io.StringIO()
    path = tmp_path / "report.json"
    simulate(TRAFFIC, SHAPE, gpu_hour=2.0, find_size=False, json_path=path, out=out)
    rows = json.loads(path.read_text("utf-8"))["policies"]
    assert [row["policy"] for row in rows] == list(POLICIES)
    for row in rows:
        assert any(
            line.startswith(row["policy"]) and f"{row['warm_rate']:.1%}" in line for line in out.getvalue().splitlines()
        )
        assert row["audio_hour"] == pytest.approx(2.0 * SHAPE.workers / row["mean_concurrent"])
