"""Ways to choose a worker for a session: ours, and those of its peers, for the simulator to compare.

Every policy is given the front door's admission, `has_room`: it never fills a worker over its capacity or its LoRA
slots, and goes on to another worker where one is full, which is more than some of the peers do.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from app.core.models import Voice
from app.core.placement import EPSILON, Bound, has_room, offers
from app.core.simulation import Policy, SimulatedFleet, SimulatedWorker, adapter_of


def ours(fleet: SimulatedFleet, voice: Voice, draw: float) -> SimulatedWorker | None:
    """`app.core.placement`, as the front door runs it."""
    holders = fleet.holders.get(adapter_of(voice), {}).values()
    offered = offers(fleet.ring, fleet.workers, holders, Bound(fleet.sessions, fleet.capacity), voice)
    return next((candidate.worker for candidate in offered), None)


def ring_of_voices(fleet: SimulatedFleet, voice: Voice, draw: float) -> SimulatedWorker | None:
    """The voice's place on the ring, and on from there past whoever is full."""
    return _first_with_room((fleet.workers[name] for name in fleet.ring.walk(voice.id)), voice)


def ring_of_sessions(fleet: SimulatedFleet, voice: Voice, draw: float) -> SimulatedWorker | None:
    """The session's place on the ring, whatever its voice: the router of vLLM's production-stack."""
    return _first_with_room((fleet.workers[name] for name in fleet.ring.walk(repr(draw))), voice)


def bounded_ring(fleet: SimulatedFleet, voice: Voice, draw: float) -> SimulatedWorker | None:
    """The first on the voice's walk with less than (1 + ε) of its share: HAProxy's hash-balance-factor.

    Envoy's bounded load has the same bound, and sends what overflows on in another order.
    """
    share = (1 + EPSILON) * (fleet.sessions + 1) / fleet.capacity
    over = None
    for name in fleet.ring.walk(voice.id):
        worker = fleet.workers[name]
        if has_room(worker, voice):
            if worker.inflight < max(1, share * worker.capacity):
                return worker
            over = over or worker
    return over


def least_loaded(fleet: SimulatedFleet, voice: Voice, draw: float) -> SimulatedWorker | None:
    """Whoever has the fewest sessions for its capacity."""
    first = fleet.by_index[int(fleet.loads.argmin())]
    if has_room(first, voice):
        return first
    order = np.argsort(fleet.loads, kind="stable")[: len(fleet.workers)]
    return _first_with_room((fleet.by_index[index] for index in order.tolist()), voice)


def at_random(fleet: SimulatedFleet, voice: Voice, draw: float) -> SimulatedWorker | None:
    """Anybody with room: from a drawn worker on, in drawn steps, so that a full one does not fill its neighbour."""
    size = len(fleet.listed)
    first = int(draw * size)
    step = 1 + int(draw * 1e6) % size
    drawn = (fleet.listed[(first + i * step) % size] for i in range(8))
    return _first_with_room(drawn, voice) or _first_with_room(fleet.listed[first:] + fleet.listed[:first], voice)


def _first_with_room(workers: Iterable[SimulatedWorker], voice: Voice) -> SimulatedWorker | None:
    return next((worker for worker in workers if has_room(worker, voice)), None)


POLICIES: dict[str, Policy] = {
    "ours": ours,
    "ring of voices": ring_of_voices,
    "ring of sessions": ring_of_sessions,
    "bounded ring": bounded_ring,
    "least loaded": least_loaded,
    "random": at_random,
}
