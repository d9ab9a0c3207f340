"""Which worker speaks for a voice: bounded-load consistent hashing over the active workers of one model, in pure
functions.

The key is the voice, not the session, so that a voice's adapter is needed on one worker only, as long as that has room.
Weights are static capacity: load never turns the ring, it only decides who is passed over on the walk around it
(https://arxiv.org/abs/1608.01350). A popular voice outgrows its home's bound, is loaded on the next of the ring, and is
then spread over all that have its adapter; when it is no longer requested, the worker's cache evicts it. So replicas
follow from the snapshot alone, and front doors agree on them without talking. Background sessions yield to interactive
ones, but only where it is worth it: see `rank_workers`.

This module does not know how a fleet is observed, nor how a place is claimed: a candidate is a guess, and the
registry's one Lua call is the arbiter.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, islice
from math import ceil
from typing import Generic, Literal, Protocol, TypeVar

from app.fleet.ring import Ring
from app.fleet.worker import Worker, WorkerState
from app.speech.voices import AdapterVersion, Voice

POINTS_PER_PLACE = 20
"""Points on the ring for each session a worker can speak with."""

MIN_POINTS = 160
"""Points of the smallest worker; with 160, the fullest of equal workers has 1.09 to 1.26 of the mean's keys."""

EPSILON = 0.25
"""By how much more than its share of all sessions a worker may have before it is passed over."""

COLD_CHOICES = 6
UNEVEN = 0.125
"""Of so many at the beginning of a voice's walk, the first that is not fuller by more than this than the emptiest of
them loads an adapter that must be loaded. It evens out places and slots, which the ring alone does not; and front doors
whose views differ by a session or two still agree (compose/SCALING.md)."""

FLOOR = 0.25
"""Up to this part of its capacity no worker is passed over: at low traffic a share is less than one session."""

Reason = Literal["home", "warm", "loading", "next", "over"]
"""Why a worker is offered: it is the voice's home; it has the adapter; it is loading it; it is the next on the ring; it
is over its bound, and no other is left."""


class Host(Protocol):
    """What placement reads of a worker: a `Worker` of a snapshot, or the simulator's."""

    @property
    def id(self) -> str: ...
    @property
    def capacity(self) -> int: ...
    @property
    def max_voices(self) -> int: ...
    @property
    def inflight(self) -> int: ...
    @property
    def active_adapters(self) -> Collection[str]: ...
    @property
    def background(self) -> int: ...
    @property
    def background_adapters(self) -> Collection[str]: ...
    @property
    def ready_adapters(self) -> Collection[str]: ...


H = TypeVar("H", bound=Host)


@dataclass(frozen=True, slots=True)
class Candidate(Generic[H]):
    """A worker that seems to have room, why it is offered, and how many sessions it may have at most with this one.

    The `bound` is for the registry: of several front doors that see the last place below a worker's bound, one gets it.
    """

    worker: H
    reason: Reason
    bound: int


@dataclass(slots=True)
class Bound:
    """How many sessions a worker may have before others are tried: (1 + ε) of its share of all `sessions` and one."""

    sessions: int
    capacity: int

    def of(self, worker: Host) -> int:
        share = (self.sessions + 1) * worker.capacity / self.capacity
        return min(worker.capacity, max(ceil(FLOOR * worker.capacity), ceil((1 + EPSILON) * share)))


def candidates(workers: Iterable[Worker], voice: Voice, *, background: bool = False) -> Iterator[Candidate[Worker]]:
    """Workers with room for `voice`, best first. Empty when none has room, or none serves the voice's model."""
    index = PlacementIndex()
    for worker in workers:
        if worker.model.name == voice.model:
            index.put(worker)
    return index.candidates(voice, background=background)


class PlacementIndex:
    """The workers of one model, and what a placement derives from all of them, kept up to date as they change.

    What it offers depends on the workers alone, not on the order or the history in which they came to be known.
    """

    def __init__(self) -> None:
        self._active: dict[str, Worker] = {}
        self._holders: defaultdict[str, set[str]] = defaultdict(set)
        """Adapter -> the active workers that have it, or are loading it."""
        self._bound = Bound(0, 0)
        self._background_bound = Bound(0, 0)
        self._ring: Ring | None = None

    def put(self, worker: Worker) -> None:
        """Add `worker`, or replace what is known of it."""
        if worker.state is not WorkerState.ACTIVE:
            self.remove(worker.id)
            return
        known = self._active.get(worker.id)
        if known is worker:
            return
        self._active[worker.id] = worker
        self._count(worker, +1)
        if known is not None:
            self._count(known, -1)
        if known is None or known.capacity != worker.capacity:
            self._ring = None
        for adapters, before in zip(_adapters(worker), _adapters(known), strict=True):
            if adapters is not before:
                for adapter in adapters - before:
                    self._holders[adapter].add(worker.id)
                self._let_go(worker.id, before - adapters)

    def remove(self, worker_id: str) -> None:
        """Remove a worker, if it is known."""
        known = self._active.pop(worker_id, None)
        if known is not None:
            self._count(known, -1)
            self._ring = None
            self._let_go(worker_id, frozenset().union(*_adapters(known)))

    def candidates(self, voice: Voice, *, background: bool = False) -> Iterator[Candidate[Worker]]:
        """As the function of this name. Changes that are made during the walk are seen by the rest of it."""
        if not self._active:
            return iter(())
        if self._ring is None:
            self._ring = ring_of((worker.id, worker.capacity) for worker in self._active.values())
        bound = self._background_bound if background else self._bound
        names = self._holders.get(voice.adapter.name, ()) if voice.adapter else ()
        holders = [self._active[name] for name in names]
        return rank_workers(self._ring, self._active, holders, bound, voice, background=background)

    def _count(self, worker: Worker, sign: int) -> None:
        for bound, background in ((self._bound, False), (self._background_bound, True)):
            bound.sessions += sign * _sessions(worker, background)
            bound.capacity += sign * worker.capacity

    def _let_go(self, worker_id: str, adapters: Iterable[str]) -> None:
        """`adapters` are no longer what they were at a worker; they may still be there otherwise."""
        worker = self._active.get(worker_id)
        for adapter in adapters:
            if worker is None or not _holds(worker, adapter):
                self._holders[adapter].discard(worker_id)
                if not self._holders[adapter]:
                    del self._holders[adapter]


def rank_workers(
    ring: Ring,
    workers: Mapping[str, H],
    holders: Iterable[H],
    bound: Bound,
    voice: Voice,
    *,
    background: bool = False,
) -> Iterator[Candidate[H]]:
    """The candidates among `workers`, on the `ring`; `holders` are those that have or load the adapter.

    First those within their bound that have the adapter, the one with the most to spare first; then those within their
    bound that are loading it, for a second copy would come no sooner. Then the ring's order, where the adapter must be
    loaded, but first of all the first that is about as empty as those near it; and those where a background session
    would have to yield. A holder keeps its turn even so: a listener would wait longer for the adapter to be loaded
    elsewhere than a narration for its next place. Those over their bound come last, and only while none with room is
    within its bound.

    `workers` and `bound` may change during the walk: a claim refused in a race shows there, and puts no worker over its
    bound without need.
    """
    adapter = voice.adapter.name if voice.adapter else ""
    home = next(ring.walk(voice.id))
    having = sorted(holders, key=lambda w: (_fullness(w, adapter, background), w.id != home, w.id))
    offered: set[str] = set()

    def fits(worker: H) -> bool:
        return has_room(worker, voice, background=background)

    def within(worker: H) -> bool:
        return _sessions(worker, background) < bound.of(worker)

    def makes_way(worker: H) -> bool:
        return not background and worker.background > 0 and not has_room(worker, voice, background=True)

    def pick(among: Iterable[H], accepts: Callable[[H], bool]) -> Iterator[H]:
        for worker in among:
            if worker.id not in offered and fits(worker) and accepts(worker):
                offered.add(worker.id)
                yield worker

    def around() -> Iterator[H]:
        return (workers[name] for name in ring.walk(voice.id) if name in workers)

    def undisturbed(worker: H) -> bool:
        return within(worker) and not makes_way(worker)

    def first_even() -> Iterator[H]:
        near = list(islice((w for w in around() if fits(w) and undisturbed(w)), COLD_CHOICES)) if adapter else []
        fullness = [_fullness(w, adapter, background) for w in near]
        return (w for w, full in zip(near, fullness, strict=True) if full <= min(fullness) + UNEVEN)

    for worker in pick(having, lambda w: within(w) and adapter in w.ready_adapters):
        yield Candidate(worker, "home" if worker.id == home else "warm", bound.of(worker))
    for worker in pick(having, within):
        yield Candidate(worker, "loading", bound.of(worker))
    to_load = islice(pick(first_even(), undisturbed), 1)
    for worker in chain(to_load, pick(around(), undisturbed), pick(around(), within)):
        yield Candidate(worker, "home" if worker.id == home else "next", bound.of(worker))
    nobody_within = not any(fits(worker) and within(worker) for worker in workers.values())
    for worker in pick(chain(having, around()), lambda _: nobody_within):
        yield Candidate(worker, "over", worker.capacity)


def has_room(worker: Host, voice: Voice, *, background: bool = False) -> bool:
    """Whether `worker` can take one more session with `voice`: a place, and a LoRA slot if the voice needs one.

    Without the second rule a worker with more distinct adapters than slots lets one of them starve. Background sessions
    yield, so an interactive one does not count them; a background session needs room beside all others.
    """
    if _sessions(worker, background) >= worker.capacity:
        return False
    if voice.adapter is None:
        return True
    active = worker.active_adapters
    if background:
        active = {*active, *worker.background_adapters}
    return len(active) < worker.max_voices or voice.adapter.name in active


def share_of(joining: Worker, others: Iterable[Worker], wanted: Iterable[AdapterVersion]) -> list[AdapterVersion]:
    """The voices of `wanted` that will be routed to `joining`, in that order, once it is on the ring with the `others`.

    A voice belongs to its home; one that is being spoken with on several workers belongs to as many, in the order in
    which the ring visits them. Of several versions of a voice, only the latest will be wanted.
    """
    there = [worker for worker in others if worker.model.name == joining.model.name and worker.id != joining.id]
    staying = [worker for worker in there if worker.state is not WorkerState.DRAINING]
    ring = ring_of((worker.id, worker.capacity) for worker in (joining, *staying))
    wanted = list(wanted)
    latest: dict[str, int] = {}
    for version in wanted:
        latest[version.voice_id] = max(version.version, latest.get(version.voice_id, 0))
    share: list[AdapterVersion] = []
    for version in wanted:
        replicas = max(1, sum(version.name in worker.active_adapters for worker in there))
        if latest[version.voice_id] == version.version and joining.id in islice(ring.walk(version.voice_id), replicas):
            share.append(version)
    return share


def ring_of(members: Iterable[tuple[str, int]]) -> Ring:
    """The ring of workers, each (id, capacity)."""
    return _ring(frozenset(members))


@lru_cache(maxsize=64)
def _ring(members: frozenset[tuple[str, int]]) -> Ring:
    """Building costs milliseconds, and members change seldom."""
    return Ring({name: max(MIN_POINTS, POINTS_PER_PLACE * capacity) for name, capacity in members})


def _sessions(worker: Host, background: bool) -> int:
    return worker.inflight + worker.background if background else worker.inflight


def _fullness(worker: Host, adapter: str, background: bool) -> float:
    """The part that is taken of what is scarcer there: places, or slots where the adapter would need another one."""
    places = _sessions(worker, background) / worker.capacity
    if adapter in worker.active_adapters:
        return places
    return max(places, len(worker.active_adapters) / worker.max_voices)


def _adapters(worker: Worker | None) -> tuple[frozenset[str], ...]:
    """What `worker` has or loads, in three kinds that may overlap."""
    if worker is None:
        return (frozenset(),) * 3
    return worker.ready_adapters, worker.active_adapters, worker.background_adapters


def _holds(worker: Host, adapter: str) -> bool:
    """Whether `adapter` is there, or on its way."""
    return (
        adapter in worker.ready_adapters or adapter in worker.active_adapters or adapter in worker.background_adapters
    )
