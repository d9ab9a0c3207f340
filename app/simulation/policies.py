"""Placement policies for the simulator to compare: ours, and those of other projects.

Every policy sees the view that a front door has of the fleet, and is given its admission, `has_room`: it goes on to
another worker where one is full, which is more than some of the peers do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from hashlib import blake2b
from itertools import islice
from math import ceil

import numpy as np

from app.fleet.placement import EPSILON, has_room, rank_workers
from app.simulation.fleet import SeenFleet, SeenWorker
from app.simulation.simulation import Offer, Policy
from app.simulation.traffic import adapter_of
from app.speech.voices import Voice


def ours(fleet: SeenFleet, voice: Voice, draw: float) -> Iterator[Offer]:
    """`app.fleet.placement`, as the front door runs it."""
    for candidate in rank_workers(fleet.ring, fleet.workers, fleet.holders(adapter_of(voice)), fleet.bound, voice):
        yield Offer(candidate.worker, candidate.bound)


def ring_of_voices(fleet: SeenFleet, voice: Voice, draw: float) -> Iterator[Offer]:
    """The voice's place on the ring, and on from there past those that are full."""
    return _with_room((fleet.workers[name] for name in fleet.ring.walk(voice.id)), voice)


def ring_of_sessions(fleet: SeenFleet, voice: Voice, draw: float) -> Iterator[Offer]:
    """The session's place on the ring, whatever its voice: the router of vLLM's production-stack."""
    return _with_room((fleet.workers[name] for name in fleet.ring.walk(repr(draw))), voice)


def bounded_ring(fleet: SeenFleet, voice: Voice, draw: float) -> Iterator[Offer]:
    """Those on the voice's walk with less than (1 + ε) of their share, then the others: HAProxy's hash-balance-factor.

    Envoy's bounded load has the same bound, and sends what overflows on in another order.
    """
    share = (1 + EPSILON) * (fleet.bound.sessions + 1) / fleet.bound.capacity
    over: list[SeenWorker] = []
    for name in fleet.ring.walk(voice.id):
        worker = fleet.workers[name]
        if worker.inflight < max(1, share * worker.capacity):
            yield from _with_room((worker,), voice)
        else:
            over.append(worker)
    yield from _with_room(over, voice)


def least_loaded(fleet: SeenFleet, voice: Voice, draw: float) -> Iterator[Offer]:
    """The worker with the fewest sessions for its capacity; among equals, one that is drawn."""
    first = int(draw * len(fleet.loads))
    turned = np.concatenate((fleet.loads[first:], fleet.loads[:first]))
    if found := list(_with_room((fleet.by_index[(first + int(turned.argmin())) % len(turned)],), voice)):
        yield found[0]
    order = (np.argsort(turned, kind="stable")[: len(fleet.listed)] + first) % len(turned)
    yield from _with_room((fleet.by_index[index] for index in order.tolist()), voice)


def rendezvous(fleet: SeenFleet, voice: Voice, draw: float) -> Iterator[Offer]:
    """Replicas by load on the workers of highest rendezvous weight, the least loaded first: NVIDIA Dynamo's LoRA plan.

    A voice has as many replicas as its share of the sessions is of all slots. Dynamo reckons that share with a moving
    average, a tick every three seconds, and a flow of least cost that keeps replicas where they are; here it is that
    of the view, and those who have the adapter go first of equals.
    """
    adapter = adapter_of(voice)
    holders = fleet.holders(adapter)
    spoken = sum(worker.active_adapters.get(adapter, 0) for worker in holders)
    slots = sum(worker.max_voices for worker in fleet.listed)
    replicas = max(1, ceil((spoken + 1) / (fleet.bound.sessions + 1) * slots))
    planned = list(islice(_by_weight(fleet, voice), min(replicas, len(fleet.listed))))
    kept = [worker for worker in holders if worker not in planned]
    yield from _with_room(sorted(planned, key=lambda worker: _load_and_copy(worker, adapter)), voice)
    yield from _with_room(sorted(kept, key=lambda worker: _load_and_copy(worker, adapter)), voice)
    yield from _with_room(_by_weight(fleet, voice), voice)


def scored(fleet: SeenFleet, voice: Voice, draw: float) -> Iterator[Offer]:
    """The sum of two scores: 1 for a worker that speaks with the adapter, 0.8 for one with a free slot, and what of its
    places is free: llm-d's LoRA scorer beside its scorer of load. Among equals, one that is drawn."""
    adapter = adapter_of(voice)
    scores = -fleet.loads
    for worker in fleet.listed:
        scores[worker.index] += 0.8 if len(worker.active_adapters) < worker.max_voices else 0.0
    for worker in fleet.holders(adapter):
        if adapter in worker.active_adapters:
            scores[worker.index] = 1 - fleet.loads[worker.index]
    first = int(draw * len(scores))
    order = (np.argsort(-np.roll(scores, -first), kind="stable")[: len(fleet.listed)] + first) % len(scores)
    yield from _with_room((fleet.by_index[index] for index in order.tolist()), voice)


def least_loaded_of_holders(fleet: SeenFleet, voice: Voice, draw: float) -> Iterator[Offer]:
    """The least loaded of those that have the adapter, whatever its load; where none has room, of all:
    production-stack's LoRA-aware route, which sends to the engines that list the adapter."""
    adapter = adapter_of(voice)
    yield from _with_room(sorted(fleet.holders(adapter), key=lambda worker: _load_and_copy(worker, adapter)), voice)
    yield from least_loaded(fleet, voice, draw)


def _by_weight(fleet: SeenFleet, voice: Voice) -> Iterator[SeenWorker]:
    """The workers by their rendezvous weight for a voice (highest random weight hashing)."""
    return (fleet.workers[name] for name in _weighted(tuple(fleet.workers), voice.id))


@lru_cache(maxsize=16_384)
def _weighted(names: tuple[str, ...], key: str) -> tuple[str, ...]:
    def weight(name: str) -> bytes:
        return blake2b(f"{key}/{name}".encode(), digest_size=8).digest()

    return tuple(sorted(names, key=weight, reverse=True))


def _load_and_copy(worker: SeenWorker, adapter: str) -> tuple[float, bool, str]:
    return worker.inflight / worker.capacity, adapter not in worker.ready_adapters, worker.id


def at_random(fleet: SeenFleet, voice: Voice, draw: float) -> Iterator[Offer]:
    """Any worker with room: from a drawn worker on, in drawn steps, so that a full one does not fill its neighbour."""
    size = len(fleet.listed)
    first = int(draw * size)
    step = 1 + int(draw * 1e6) % size
    yield from _with_room((fleet.listed[(first + i * step) % size] for i in range(8)), voice)
    yield from _with_room((fleet.listed[(first + i) % size] for i in range(size)), voice)


def _with_room(workers: Iterable[SeenWorker], voice: Voice) -> Iterator[Offer]:
    return (Offer(worker, worker.capacity) for worker in workers if has_room(worker, voice))


POLICIES: dict[str, Policy] = {
    "ours": ours,
    "ring of voices": ring_of_voices,
    "ring of sessions": ring_of_sessions,
    "bounded ring": bounded_ring,
    "least loaded": least_loaded,
    "random": at_random,
    "rendezvous": rendezvous,
    "scored": scored,
    "holders first": least_loaded_of_holders,
}
