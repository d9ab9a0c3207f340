"""Which worker speaks for a voice: a consistent hash ring over the active workers of one model, as pure functions.

The key is the voice, not the session, so that a voice's adapter is needed on one worker only, as long as that has room.
Weights are static capacity: load never turns the ring, it only decides who is passed over on the walk around it
(https://arxiv.org/abs/1608.01350, with capacity as the bound). Background sessions make way for those who listen, but
only where it is worth it: see `candidates`. This module does not know how a fleet is observed, nor how a place is
claimed: a candidate is a guess, and the registry's one Lua call is the arbiter.

Bounded load and replicas of popular voices have their place between `_walk` and `_has_room`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from uhashring import HashRing

from app.core.models import Voice, Worker, WorkerState

POINTS_PER_PLACE = 20
"""Virtual nodes for each session a worker can speak with."""

MIN_POINTS = 160
"""Virtual nodes of the smallest worker; with 160, the fullest of equal workers has 1.09 to 1.26 of the mean's keys."""

Reason = Literal["home", "next"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A worker that seems to have room, and why it is offered: it is the voice's home, or the next on the ring."""

    worker: Worker
    reason: Reason


def candidates(workers: Iterable[Worker], voice: Voice, *, background: bool = False) -> list[Candidate]:
    """Workers with room for `voice`, best first. Empty when nobody has room, or nobody serves the voice's model.

    They are in the ring's order, but those where a background session would have to make way come last. A worker that
    has the voice's adapter keeps its turn even so: somebody who listens would wait longer for it to be loaded elsewhere
    than a narration for its next place.
    """
    active = {w.id: w for w in workers if w.model.name == voice.model and w.state is WorkerState.ACTIVE}
    offered = [
        Candidate(worker, "home" if position == 0 else "next")
        for position, worker in enumerate(_walk(active, voice.id))
        if has_room(worker, voice, background=background)
    ]
    return sorted(offered, key=lambda candidate: not _keeps_its_turn(candidate.worker, voice))


def has_room(worker: Worker, voice: Voice, *, background: bool = False) -> bool:
    """Whether `worker` can take one more session with `voice`: a place, and a LoRA slot if the voice needs one.

    Without the second rule a worker with more distinct adapters than slots lets one of them starve. Background sessions
    make way, so an interactive one does not see them; a background session needs room beside everybody.
    """
    sessions, active = worker.inflight, worker.active_adapters
    if background:
        sessions, active = sessions + worker.background, active | worker.background_adapters
    if sessions >= worker.capacity:
        return False
    adapter = voice.adapter
    return adapter is None or adapter.name in active or len(active) < worker.max_voices


def _keeps_its_turn(worker: Worker, voice: Voice) -> bool:
    """Whether `voice` is at its place at `worker`: nobody makes way for it, or its adapter is there."""
    there = worker.ready_adapters | worker.active_adapters | worker.background_adapters
    return has_room(worker, voice, background=True) or (voice.adapter is not None and voice.adapter.name in there)


def _walk(workers: Mapping[str, Worker], key: str) -> Iterator[Worker]:
    """All of `workers`, in ring order from the key's node."""
    if not workers:
        return
    ring = _ring(frozenset((worker.id, worker.capacity) for worker in workers.values()))
    for node in ring.range(key):
        yield workers[node["nodename"]]


@lru_cache(maxsize=64)
def _ring(members: frozenset[tuple[str, int]]) -> HashRing:
    """The ring of one set of (worker id, capacity). Building costs milliseconds; a ring once built is never changed."""
    points = {name: {"vnodes": max(MIN_POINTS, POINTS_PER_PLACE * capacity)} for name, capacity in sorted(members)}
    return HashRing(points)
