"""Ways to choose a worker for a session: ours, and those of its peers, for the simulator to compare.

Every policy sees the view that a front door has of the fleet, and is given its admission, `has_room`: it goes on to
another worker where one is full, which is more than some of the peers do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

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


def at_random(fleet: SeenFleet, voice: Voice, draw: float) -> Iterator[Offer]:
    """Anybody with room: from a drawn worker on, in drawn steps, so that a full one does not fill its neighbour."""
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
}
