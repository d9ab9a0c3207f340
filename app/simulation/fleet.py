"""The workers of a simulated fleet as they are, and the views that front doors have of them.

A `SimulatedWorker` loads one adapter after another, keeps as many as its cache takes, and evicts the least recently
used. A `SeenFleet` is one front door's view: what was so at its last refresh, and what it has done itself since.
Policies see views only. Nothing here knows which session is placed where, or when; that is `app.simulation.simulation`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from app.fleet.placement import Bound, ring_of
from app.fleet.ring import Ring

CHANGES_KEPT = 10_000


@dataclass(frozen=True, slots=True)
class FleetShape:
    """How many workers there are, and what each can do."""

    workers: int = 100
    capacity: int = 16
    max_voices: int = 12
    cached_adapters: int = 64
    bandwidth_bytes_per_s: float = 250e6
    """At which one worker takes adapters from the store and to the engine."""


@dataclass(eq=False, slots=True)
class SimulatedWorker:
    """A worker as it is, and as Redis knows it: the arbiter of claims."""

    id: str
    index: int
    capacity: int
    max_voices: int
    alive: bool = True
    inflight: int = 0
    active_adapters: Mapping[str, int] = field(default_factory=dict)
    """Adapter -> sessions with it. Like the next, a new one whenever it changes, so that views can keep the old."""
    ready_adapters: frozenset[str] = frozenset()
    cached: dict[str, None] = field(default_factory=dict)
    """The adapters that are ready, least recently used first."""
    loading: dict[str, float] = field(default_factory=dict)
    """Adapter -> when it is ready."""
    link_free_s: float = 0.0
    background: int = 0
    background_adapters: frozenset[str] = frozenset()


@dataclass(eq=False, slots=True)
class SeenWorker:
    """A worker as a front door sees it: in place of `app.speech.voices.Worker` for placement."""

    id: str
    index: int
    capacity: int
    max_voices: int
    inflight: int = 0
    active_adapters: Mapping[str, int] = field(default_factory=dict)
    ready_adapters: frozenset[str] = frozenset()
    background: int = 0
    background_adapters: frozenset[str] = frozenset()
    is_listed: bool = False
    """It is a member of the fleet, as far as is known."""
    is_open: bool = False
    """It has a place and a slot that are free."""


class SimulatedFleet:
    """The workers that live. Every view picks up what changed with its next refresh."""

    def __init__(self, shape: FleetShape) -> None:
        self.shape = shape
        self.by_index: list[SimulatedWorker] = []
        """Those that are lost too."""
        self.living: dict[int, SimulatedWorker] = {}
        self.views: list[SeenFleet] = []
        self.changes: list[int] = []
        """Indices of the workers that have changed, in order, from the first that some view has not read."""
        self.holders: dict[str, dict[int, None]] = {}
        """Adapter -> indices of the workers that have it or load it, or did so until lately."""
        self._dropped: deque[tuple[float, str, int]] = deque()
        self.sessions = 0
        self.loads = np.zeros(0)
        """Sessions ÷ capacity, by a worker's index; infinite where a worker is lost."""
        for _ in range(shape.workers):
            self._add()
        self._turn()

    def open_view(self) -> SeenFleet:
        """A further front door's, fresh."""
        self.views.append(SeenFleet(self))
        return self.views[-1]

    def join(self) -> SimulatedWorker:
        worker = self._add()
        self._turn()
        return worker

    def _add(self) -> SimulatedWorker:
        index = len(self.by_index)
        worker = SimulatedWorker(f"worker-{index}", index, self.shape.capacity, self.shape.max_voices)
        self.by_index.append(worker)
        self.living[index] = worker
        self.loads = np.append(self.loads, 0.0)
        for view in self.views:
            view.expect(worker)
        return worker

    def drain(self, worker: SimulatedWorker) -> None:
        """It takes no session from now on; those that it has go on."""
        del self.living[worker.index]
        worker.alive = False
        self.loads[worker.index] = np.inf
        self._turn()

    def lose(self, worker: SimulatedWorker, now_s: float) -> None:
        """With its sessions, if it has any."""
        if worker.alive:
            self.drain(worker)
        self.sessions -= worker.inflight
        for adapter in (*worker.cached, *worker.loading):
            self._dropped.append((now_s, adapter, worker.index))
        worker.inflight, worker.active_adapters, worker.cached, worker.loading = 0, {}, {}, {}
        worker.ready_adapters = frozenset()

    def _turn(self) -> None:
        self.ring: Ring = ring_of((worker.id, worker.capacity) for worker in self.living.values())

    def occupy(self, worker: SimulatedWorker, adapter: str) -> None:
        worker.inflight += 1
        worker.active_adapters = {**worker.active_adapters, adapter: worker.active_adapters.get(adapter, 0) + 1}
        self._count(worker, +1)

    def vacate(self, worker: SimulatedWorker, adapter: str) -> None:
        worker.inflight -= 1
        active = {**worker.active_adapters, adapter: worker.active_adapters[adapter] - 1}
        if not active[adapter]:
            del active[adapter]
        worker.active_adapters = active
        self._count(worker, -1)

    def _count(self, worker: SimulatedWorker, sessions: int) -> None:
        self.sessions += sessions
        if worker.alive:
            self.loads[worker.index] = worker.inflight / worker.capacity
        self._note_change(worker)

    def _note_change(self, worker: SimulatedWorker) -> None:
        self.changes.append(worker.index)

    def load(self, worker: SimulatedWorker, adapter: str, size: int, now_s: float) -> float:
        """Begin to load an adapter; when it is ready."""
        ready_s = max(now_s, worker.link_free_s) + size / self.shape.bandwidth_bytes_per_s
        worker.link_free_s = worker.loading[adapter] = ready_s
        self.holders.setdefault(adapter, {})[worker.index] = None
        return ready_s

    def loaded(self, worker: SimulatedWorker, adapter: str, now_s: float) -> None:
        """The adapter is there; those used least recently, and not now, make room for it."""
        del worker.loading[adapter]
        worker.cached[adapter] = None
        excess = len(worker.cached) - self.shape.cached_adapters
        if excess > 0:
            idle = (name for name in worker.cached if name not in worker.active_adapters)
            for name in list(islice(idle, excess)):
                del worker.cached[name]
                self._dropped.append((now_s, name, worker.index))
        worker.ready_adapters = frozenset(worker.cached)
        self._note_change(worker)

    def forget(self, before_s: float) -> None:
        """Every view is younger than that: what was dropped before is no holder any more, nor a change."""
        read = min(view.changes_read for view in self.views)
        if read > CHANGES_KEPT:
            del self.changes[:read]
            for view in self.views:
                view.changes_read -= read
        while self._dropped and self._dropped[0][0] < before_s:
            _, adapter, index = self._dropped.popleft()
            worker, holders = self.by_index[index], self.holders.get(adapter, {})
            if adapter not in worker.cached and adapter not in worker.loading and index in holders:
                del holders[index]
                if not holders:
                    del self.holders[adapter]


class SeenFleet:
    """One front door's view of the fleet, with what placement derives from it kept up to date."""

    def __init__(self, fleet: SimulatedFleet) -> None:
        self._fleet = fleet
        self.changes_read = len(fleet.changes)
        """How many of the fleet's changes this door has read."""
        self._learnt: list[int] = []
        """Where a claim was refused since the refresh."""
        self.by_index: list[SeenWorker] = []
        self.workers: Mapping[str, SeenWorker] = {}
        self.listed: list[SeenWorker] = []
        self.bound = Bound(0, 0)
        """Of the sessions and places it sees; like the workers, it changes during a walk past them."""
        self.open = 0
        """Workers with a place and a slot that are free."""
        for worker in fleet.by_index:
            self.expect(worker)
        self._turn()

    def expect(self, worker: SimulatedWorker) -> None:
        """There is a new worker; this door lists it with its next refresh."""
        self.by_index.append(SeenWorker(worker.id, worker.index, worker.capacity, worker.max_voices))

    def refresh(self) -> None:
        if self.ring is not self._fleet.ring:
            self._turn()
        indices = {*self._fleet.changes[self.changes_read :], *self._learnt}
        truth, changed = self._fleet.by_index, [seen for index in indices if (seen := self.by_index[index]).is_listed]
        for seen in changed:  # `_set`, written out: most of a simulation's time is spent here
            worker = truth[seen.index]
            inflight, active = worker.inflight, worker.active_adapters
            is_open = inflight < seen.capacity and len(active) < seen.max_voices
            self.bound.sessions += inflight - seen.inflight
            self.open += is_open - seen.is_open
            seen.inflight, seen.is_open = inflight, is_open
            seen.active_adapters, seen.ready_adapters = active, worker.ready_adapters
        if changed:
            self.loads[[seen.index for seen in changed]] = [seen.inflight / seen.capacity for seen in changed]
        self.changes_read = len(self._fleet.changes)
        self._learnt.clear()

    def _turn(self) -> None:
        """Note which workers have come and gone."""
        self.ring = self._fleet.ring
        for seen in self.listed:
            seen.is_listed = False
        self.listed = [self.by_index[index] for index in self._fleet.living]
        self.workers = {seen.id: seen for seen in self.listed}
        self.loads = np.full(len(self.by_index), np.inf)
        self.bound.capacity = sum(seen.capacity for seen in self.listed)
        self.bound.sessions = sum(seen.inflight for seen in self.listed)
        self.open = 0
        for seen in self.listed:
            seen.is_listed, seen.is_open = True, False
            self._set(seen, seen.inflight, seen.active_adapters)

    def _set(self, seen: SeenWorker, inflight: int, active_adapters: Mapping[str, int]) -> None:
        self.bound.sessions += inflight - seen.inflight
        seen.inflight, seen.active_adapters = inflight, active_adapters
        is_open = inflight < seen.capacity and len(active_adapters) < seen.max_voices
        self.open += is_open - seen.is_open
        seen.is_open = is_open
        self.loads[seen.index] = inflight / seen.capacity

    def occupy(self, seen: SeenWorker, adapter: str) -> None:
        """Count a session of this door's own."""
        count = seen.active_adapters.get(adapter, 0)
        self._set(seen, seen.inflight + 1, {**seen.active_adapters, adapter: count + 1})

    def vacate(self, index: int) -> None:
        """A session of this door's own has ended there. Its adapter counts on until the next refresh."""
        seen = self.by_index[index]
        if seen.is_listed:
            self._set(seen, max(0, seen.inflight - 1), seen.active_adapters)

    def learn(self, seen: SeenWorker, sessions: int) -> None:
        """A claim was refused, and the worker's sessions came with the answer."""
        self._set(seen, sessions, seen.active_adapters)
        self._learnt.append(seen.index)

    def exclude(self, seen: SeenWorker) -> None:
        """A claim was refused for another reason: the worker counts as full until the next refresh."""
        self.learn(seen, max(seen.inflight, seen.capacity))

    def holders(self, adapter: str) -> list[SeenWorker]:
        """Those that seem to have the adapter, or to load it."""
        return [
            seen
            for index in self._fleet.holders.get(adapter, ())
            if (seen := self.by_index[index]).is_listed
            and (adapter in seen.ready_adapters or adapter in seen.active_adapters)
        ]

    def may_have_room(self, adapter: str) -> bool:
        """Whether a claim is worth trying: a worker is open, or one without a free slot speaks with this adapter."""
        return self.open > 0 or any(
            seen.inflight < seen.capacity and adapter in seen.active_adapters for seen in self.holders(adapter)
        )
