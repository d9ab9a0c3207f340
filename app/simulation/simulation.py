"""A fleet in virtual time: one trace of session starts, placed by the real placement code or by another policy.

A session is speech from its start to its end, and holds one place so long. It comes to one of several front doors,
which chooses from its own view of the fleet, and claims: whether there is room is decided by the fleet as it is, as
Redis does, and a claim that is refused goes to the next candidate. A start for which no worker has room waits for the
door's view to change, for a moment, and is then refused. A session whose adapter is not there waits for it, holding its
place. Sessions of a worker that is lost are placed again by the door they came through.

Every policy is given all of this, which is more than some of the peers have: views that show what other doors did, an
arbiter that never lets a worker be filled over its capacity or its LoRA slots, and the wait for room.

What the model leaves out: the time that a claim takes; the heartbeat by which a door knows that an adapter is loaded,
and the seconds for which Redis believes in a worker that is lost; and the stall that loading an adapter is to the
streams beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from itertools import count
from math import ceil
from typing import Any

import numpy as np

from app.fleet.placement import has_room
from app.simulation.fleet import FleetShape, SeenFleet, SeenWorker, SimulatedFleet, SimulatedWorker
from app.simulation.results import Outcome, Sample
from app.simulation.scaling import LOOK_S, Autoscaler, Scaling, Seen
from app.simulation.traffic import ChangeKind, Trace, adapter_of, voice_of
from app.speech.voices import Voice

SAMPLE_EVERY_S = 10.0
BLOCK = 100_000
"""Starts that are turned into Python's numbers at once."""


@dataclass(frozen=True, slots=True)
class FrontDoors:
    """Through how many doors sessions come, in turns, and what each knows and does."""

    count: int = 4
    refresh_s: float = 0.5
    """How often a door refreshes its view, the doors one after another; 0: whenever it decides."""
    queue_s: float = 1.0
    """How long a start waits for room before it is refused."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A worker that a session may be claimed at, if it has fewer sessions than `bound` when the claim arrives."""

    worker: SeenWorker
    bound: int


Policy = Callable[[SeenFleet, Voice, float], Iterator[Offer]]
"""`policy(fleet, voice, draw)`: the workers that seem to have room for a session, best first."""


@dataclass(eq=False, slots=True)
class Session:
    """One that waits for room, or speaks."""

    rank: int
    voice: Voice
    adapter: str
    draw: float
    door: Door
    length_s: float
    """That it has yet to speak."""
    asked_s: float
    """When it came, or lost its place."""
    reported: bool
    worker: SimulatedWorker | None = None
    begins_s: float = 0.0
    ends_s: float = 0.0
    waiting: bool = False
    is_cut: bool = False


@dataclass(eq=False, slots=True)
class Door:
    """A front door: its view, and the sessions that wait at it for room, first come first."""

    view: SeenFleet
    waiting: list[Session] = field(default_factory=list)


class Simulation:
    """One policy on one trace."""

    def __init__(
        self,
        trace: Trace,
        shape: FleetShape,
        policy: Policy,
        doors: FrontDoors | None = None,
        *,
        scaling: Scaling | None = None,
        notice_s: float = 0.0,
    ) -> None:
        """`shape` has the workers at the start. One that is lost says so `notice_s` before, as a spot machine does."""
        self.fleet = SimulatedFleet(shape)
        self.outcome = Outcome()
        self._trace = trace
        self._policy = policy
        self._settings = doors or FrontDoors()
        self._doors = [Door(self.fleet.open_view()) for _ in range(self._settings.count)]
        self._speaking: dict[int, dict[Session, None]] = {}
        """By a worker's index."""
        self._started = 0
        self._due: list[tuple[float, int, Callable[[float, Any], None], Any]] = []
        """A heap of (when, order among equals, what happens, to what)."""
        self._order = count()
        self._notice_s = notice_s
        self._autoscaler = Autoscaler(scaling) if scaling else None
        self._starting = 0
        self._paid, self._paid_from_s = shape.workers, trace.traffic.warm_up_s

    def run(self) -> Outcome:
        """Play the trace to its end, and the sessions that run then to theirs. Once."""
        refresh_s, traffic = self._settings.refresh_s, self._trace.traffic
        if refresh_s:
            for number, door in enumerate(self._doors):
                self._at(refresh_s * (number + 1) / len(self._doors), self._refresh, door)
        for at_s, kind, draw in self._trace.changes:
            self._at(at_s, self._change, (kind, draw))
        for at_s in np.arange(traffic.warm_up_s, traffic.end_s + SAMPLE_EVERY_S / 2, SAMPLE_EVERY_S).tolist():
            self._at(at_s, self._sample, None)
        if self._autoscaler:
            self._at(LOOK_S, self._scale, self._autoscaler)
        self._at(traffic.end_s, self._pay, 0)
        for rank, start_s, length_s, draw in _starts(self._trace):
            self._settle(start_s)
            self._start(rank, start_s, length_s, draw)
        self._settle(float("inf"))
        return self.outcome

    def _at(self, when_s: float, action: Callable[[float, Any], None], subject: Any) -> None:
        heappush(self._due, (when_s, next(self._order), action, subject))

    def _settle(self, until_s: float) -> None:
        """Let everything happen that is due."""
        due = self._due
        while due and due[0][0] <= until_s:
            when_s, _, action, subject = heappop(due)
            action(when_s, subject)

    # What happens, each at its time.

    def _start(self, rank: int, now_s: float, length_s: float, draw: float) -> None:
        door = self._doors[self._started % len(self._doors)]
        self._started += 1
        reported = now_s >= self._trace.traffic.warm_up_s
        self.outcome.starts += reported
        voice = voice_of(rank)
        self._ask(now_s, Session(rank, voice, adapter_of(voice), draw, door, length_s, now_s, reported))

    def _end(self, now_s: float, session: Session) -> None:
        worker = session.worker
        if worker is None or now_s != session.ends_s:
            return  # of a place it has lost meanwhile
        session.worker = None
        self._speaking[worker.index].pop(session)
        self.fleet.vacate(worker, session.adapter)
        self.outcome.ended += session.reported
        session.door.view.vacate(worker.index)
        for door in self._doors if not self._settings.refresh_s else (session.door,):
            self._wake(now_s, door)

    def _loaded(self, now_s: float, copy: tuple[SimulatedWorker, str]) -> None:
        worker, adapter = copy
        if adapter in worker.loading:
            self.fleet.loaded(worker, adapter, now_s)

    def _refresh(self, now_s: float, door: Door) -> None:
        door.view.refresh()
        self.fleet.forget(now_s - self._settings.refresh_s)
        self._wake(now_s, door)
        if now_s < self._trace.traffic.end_s or door.waiting:
            self._at(now_s + self._settings.refresh_s, self._refresh, door)

    def _give_up(self, now_s: float, session: Session) -> None:
        if session.waiting:
            session.waiting = False
            session.door.waiting.remove(session)
            self._refuse(session)

    def _change(self, now_s: float, change: tuple[ChangeKind, float]) -> None:
        kind, draw = change
        if kind == "join":
            self._join(now_s, 0)
            return
        lost = list(self.fleet.living.values())[int(draw * len(self.fleet.living))]
        self.outcome.losses += 1
        if self._notice_s:
            self._drain(now_s, lost, self._notice_s)
        else:
            self._lose(now_s, lost)

    def _join(self, now_s: float, starting: int) -> None:
        """`starting` of those that start are there; 0: one that nobody has waited for."""
        self._starting -= starting
        if not starting:
            self._pay(now_s, 1)
        for _ in range(starting or 1):
            self.fleet.join()

    def _drain(self, now_s: float, worker: SimulatedWorker, deadline_s: float) -> None:
        """It takes no session, and is gone at the deadline; what it has then goes on elsewhere."""
        self.fleet.drain(worker)
        self._at(now_s + deadline_s, self._lose, worker)

    def _lose(self, now_s: float, lost: SimulatedWorker) -> None:
        drained = not lost.alive
        self.fleet.lose(lost, now_s)
        self._pay(now_s, -1)
        for session in self._speaking.pop(lost.index, {}):
            self.outcome.cut += session.reported and not drained
            self.outcome.handed_on += session.reported and drained
            session.worker, session.is_cut, session.asked_s = None, True, now_s
            session.length_s = session.ends_s - max(now_s, session.begins_s)
            view = session.door.view
            view.exclude(view.by_index[lost.index])
            self._ask(now_s, session)

    def _scale(self, now_s: float, autoscaler: Autoscaler) -> None:
        fleet, scaling = self.fleet, autoscaler.scaling
        in_use = sum(worker.inflight for worker in fleet.living.values())
        waiting = sum(len(door.waiting) for door in self._doors)
        seen = Seen(in_use, waiting, len(fleet.living), self._starting, fleet.shape.capacity)
        change = autoscaler.change(now_s, seen)
        if change > 0:
            self._starting += change
            self._pay(now_s, change)
            self._at(now_s + scaling.start_s, self._join, change)
        for worker in sorted(fleet.living.values(), key=lambda worker: worker.inflight)[: max(0, -change)]:
            self._drain(now_s, worker, scaling.drain_s)
        if now_s < self._trace.traffic.end_s:
            self._at(now_s + LOOK_S, self._scale, autoscaler)

    def _pay(self, now_s: float, more: int) -> None:
        """From now on so many workers more are paid for, from the decision to start one until it is gone."""
        until_s = min(max(now_s, self._paid_from_s), self._trace.traffic.end_s)
        self.outcome.worker_s += self._paid * max(0.0, until_s - self._paid_from_s)
        self._paid_from_s, self._paid = max(self._paid_from_s, until_s), self._paid + more

    def _sample(self, now_s: float, _: None) -> None:
        loads = self.fleet.loads[np.isfinite(self.fleet.loads)]
        mean, found = float(loads.mean()), self.outcome
        peak = float(np.percentile(loads, 99)) / mean if mean else 0.0
        found.samples.append(Sample(now_s, self.fleet.sessions, peak, found.served, found.warm, found.cold_bytes))

    # Placing.

    def _ask(self, now_s: float, session: Session) -> None:
        """Place a session, or let it wait for room."""
        if self._place(now_s, session):
            return
        if not self._settings.queue_s:
            self._refuse(session)
            return
        session.waiting = True
        session.door.waiting.append(session)
        self.outcome.queued += session.reported and not session.is_cut
        self._at(now_s + self._settings.queue_s, self._give_up, session)

    def _wake(self, now_s: float, door: Door) -> None:
        """The door's view has changed: every session that waits tries again."""
        if door.waiting:
            door.waiting = [session for session in door.waiting if not self._place(now_s, session)]

    def _refuse(self, session: Session) -> None:
        self.outcome.refused += session.reported and not session.is_cut

    def _place(self, now_s: float, session: Session) -> bool:
        view = session.door.view
        if not self._settings.refresh_s:
            view.refresh()
        if not view.may_have_room(session.adapter):
            return False
        for offer in self._policy(view, session.voice, session.draw):
            worker = self.fleet.by_index[offer.worker.index]
            granted = worker.alive and worker.inflight < offer.bound and has_room(worker, session.voice)
            if session.reported and not session.is_cut:
                self.outcome.claims += 1
                self.outcome.refused_claims += not granted
            if granted:
                view.occupy(offer.worker, session.adapter)
                self._begin(now_s, session, worker)
                return True
            if worker.alive and worker.inflight >= offer.bound:
                view.learn(offer.worker, worker.inflight)
            else:
                view.exclude(offer.worker)
        return False

    def _begin(self, now_s: float, session: Session, worker: SimulatedWorker) -> None:
        session.waiting, session.worker = False, worker
        session.begins_s = self._ready_s(now_s, session, worker)
        session.ends_s = session.begins_s + session.length_s
        self.fleet.occupy(worker, session.adapter)
        self._speaking.setdefault(worker.index, {})[session] = None
        self._at(session.ends_s, self._end, session)
        self._report(now_s, session)

    def _ready_s(self, now_s: float, session: Session, worker: SimulatedWorker) -> float:
        """When the session's adapter is there; where it is not, it is loaded."""
        adapter = session.adapter
        if adapter in worker.cached:
            worker.cached[adapter] = worker.cached.pop(adapter)
            return now_s
        if adapter in worker.loading:
            return worker.loading[adapter]
        size = int(self._trace.adapter_bytes[session.rank])
        ready_s = self.fleet.load(worker, adapter, size, now_s)
        self._at(ready_s, self._loaded, (worker, adapter))
        if now_s >= self._trace.traffic.warm_up_s:
            self.outcome.cold_loads += 1
            self.outcome.cold_bytes += size
        return ready_s

    def _report(self, now_s: float, session: Session) -> None:
        if not session.reported:
            return
        if session.is_cut:
            self.outcome.moved += 1
            return
        is_storm = session.rank == self._trace.traffic.voices
        self.outcome.serve(0 if is_storm else session.rank + 1, warm=session.begins_s == now_s)
        if now_s > session.asked_s:
            self.outcome.room_waits_s.append(now_s - session.asked_s)
        if session.begins_s > session.asked_s:
            self.outcome.waits_s.append(session.begins_s - session.asked_s)


def _starts(trace: Trace) -> Iterator[tuple[int, float, float, float]]:
    """(rank, start_s, length_s, draw) of every session."""
    columns = (trace.voice, trace.start_s, trace.length_s, trace.draw)
    for first in range(0, len(trace.start_s), BLOCK):
        yield from zip(*(column[first : first + BLOCK].tolist() for column in columns), strict=True)


def workers_needed(
    trace: Trace, shape: FleetShape, policy: Policy, doors: FrontDoors | None = None, *, refused: float = 0.01
) -> int:
    """How many workers it takes to refuse at most this part of the starts, to a hundredth."""

    def serves(workers: int) -> bool:
        return Simulation(trace, replace(shape, workers=workers), policy, doors).run().refused_rate <= refused

    floor = trace.traffic.losses + 1
    too_few, enough = floor - 1, max(floor, ceil(trace.traffic.concurrent / shape.capacity))
    while not serves(enough):
        too_few, enough = enough, ceil(enough * 1.3)
    while enough - too_few > max(1, enough // 100):
        middle = (too_few + enough) // 2
        too_few, enough = (too_few, middle) if serves(middle) else (middle, enough)
    return enough


def moved_by_a_join(shape: FleetShape, *, keys: int = 10_000) -> float:
    """The part of the keys of a ring whose home is another worker once one more has joined; ideally its share."""
    ring, larger = (SimulatedFleet(replace(shape, workers=shape.workers + more)).ring for more in (0, 1))
    return sum(next(ring.walk(str(key))) != next(larger.walk(str(key))) for key in range(keys)) / keys
