"""A fleet in virtual time: one trace of session starts, placed by the real placement code or by another policy.

A session is speech from its start to its end, and holds one place so long. A start for which nobody has room is refused
at once; a session whose adapter is not there waits for it, holding its place. A worker loads one adapter after another,
keeps as many as its cache takes, and forgets the least recently used. Every policy is given the front door's admission:
it never fills a worker over its capacity or its LoRA slots, which is more than some of the peers do.

What the model leaves out: pictures of the fleet that are old (here a front door sees everything at once), the wait
for room before a refusal, and the stall that loading an adapter is to the streams beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from heapq import heappop, heappush
from itertools import count
from math import ceil
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from app.core.models import AdapterVersion, Voice
from app.core.placement import ring_of
from app.core.ring import Ring

MIN_ADAPTER_BYTES, MAX_ADAPTER_BYTES = 100_000_000, 200_000_000
SAMPLE_EVERY_S = 10.0
MIN_SESSION_S = 2.0


@dataclass(frozen=True, slots=True)
class Traffic:
    """Who wants to hear what: Poisson starts, exponential lengths, voices by Zipf's law."""

    seed: int = 0
    duration_s: float = 3600.0
    warm_up_s: float = 600.0
    """Before the duration, and not reported: an empty fleet is not what is asked about."""
    concurrent: float = 1_000.0
    """Sessions at once, on average, if none is refused."""
    mean_session_s: float = 240.0
    voices: int = 10_000
    zipf: float = 1.0
    """The voice of rank r is wanted r^-zipf times as often as the first."""
    storm: float = 0.1
    """For a sixth of the duration, from its middle, a voice that nobody has wanted adds this share of all starts."""
    joins: int = 2
    losses: int = 2
    """Spread over the duration, losses first: at the end there are as many workers as at its start."""


@dataclass(frozen=True, slots=True)
class FleetShape:
    """How many workers there are, and what each can do."""

    workers: int = 100
    capacity: int = 16
    max_voices: int = 12
    cached_adapters: int = 64
    bandwidth_bytes_per_s: float = 250e6
    """At which one worker takes adapters from the store and to the engine."""


@dataclass(frozen=True, slots=True)
class Trace:
    """What happens, the same for every policy: starts in order of time, and what changes in the fleet meanwhile."""

    traffic: Traffic
    start_s: NDArray[np.float64]
    voice: NDArray[np.int64]
    length_s: NDArray[np.float64]
    draw: NDArray[np.float64]
    """In [0, 1): the session's own luck, for policies that use any."""
    adapter_bytes: NDArray[np.int64]
    changes: tuple[tuple[float, Literal["join", "loss"], float], ...]
    """When, what, and a draw that says which worker is lost."""

    @property
    def heard_before(self) -> float:
        """The part of the starts after the warm-up whose voice was wanted before: no policy has more of them warm."""
        reported_from = np.searchsorted(self.start_s, self.traffic.warm_up_s)
        first_times = np.unique(self.voice, return_index=True)[1]
        starts = len(self.start_s) - reported_from
        return 1 - int(np.count_nonzero(first_times >= reported_from)) / max(1, int(starts))


def trace_of(traffic: Traffic) -> Trace:
    """The trace of `traffic`; the same seed gives the same trace."""
    random = np.random.default_rng(traffic.seed)
    rate_per_s = traffic.concurrent / traffic.mean_session_s
    end_s = traffic.warm_up_s + traffic.duration_s
    calm = random.uniform(0, end_s, random.poisson(rate_per_s * end_s))
    storm_s = traffic.duration_s / 6
    storm_at_s = traffic.warm_up_s + traffic.duration_s / 2
    wild = random.uniform(storm_at_s, storm_at_s + storm_s, random.poisson(rate_per_s * storm_s * traffic.storm))
    weights = np.arange(1, traffic.voices + 1, dtype=np.float64) ** -traffic.zipf
    ranks = np.searchsorted(np.cumsum(weights) / weights.sum(), random.random(len(calm)))
    start_s = np.concatenate([calm, wild])
    voice = np.concatenate([ranks, np.full(len(wild), traffic.voices)])
    order = np.argsort(start_s, kind="stable")
    kinds: tuple[Literal["join", "loss"], ...] = ("loss",) * traffic.losses + ("join",) * traffic.joins
    times = traffic.warm_up_s + traffic.duration_s * (np.arange(len(kinds)) + 1) / (len(kinds) + 1)
    return Trace(
        traffic=traffic,
        start_s=start_s[order],
        voice=voice[order],
        length_s=np.maximum(MIN_SESSION_S, random.exponential(traffic.mean_session_s, len(order))),
        draw=random.random(len(order)),
        adapter_bytes=random.integers(MIN_ADAPTER_BYTES, MAX_ADAPTER_BYTES, traffic.voices + 1, endpoint=True),
        changes=tuple(zip(times.tolist(), kinds, random.random(len(kinds)).tolist(), strict=True)),
    )


@dataclass(eq=False, slots=True)
class SimulatedWorker:
    """A worker as placement sees it, in place of `app.core.models.Worker`, and changed as things happen to it."""

    id: str
    index: int
    capacity: int
    max_voices: int
    inflight: int = 0
    active_adapters: dict[str, int] = field(default_factory=dict)
    ready_adapters: dict[str, None] = field(default_factory=dict)
    """Least recently used first."""
    loading: dict[str, float] = field(default_factory=dict)
    """Adapter -> when it is ready."""
    link_free_s: float = 0.0
    sessions: dict[int, float] = field(default_factory=dict)
    """Session -> when it ends."""
    background: int = 0
    background_adapters: frozenset[str] = frozenset()


class SimulatedFleet:
    """The workers that live, with what placement derives from a snapshot kept up to date instead."""

    def __init__(self, shape: FleetShape) -> None:
        self.shape = shape
        self.workers: dict[str, SimulatedWorker] = {}
        self.by_index: list[SimulatedWorker] = []
        """Those that are lost too."""
        self.holders: dict[str, dict[str, SimulatedWorker]] = {}
        self.sessions = 0
        self.capacity = 0
        self.loads = np.empty(0)
        """Sessions ÷ capacity, by a worker's index; infinite where a worker is lost."""
        for _ in range(shape.workers):
            self._add()
        self._turn()

    def join(self) -> SimulatedWorker:
        worker = self._add()
        self._turn()
        return worker

    def _add(self) -> SimulatedWorker:
        index = len(self.loads)
        worker = SimulatedWorker(f"worker-{index}", index, self.shape.capacity, self.shape.max_voices)
        self.workers[worker.id] = worker
        self.by_index.append(worker)
        self.capacity += worker.capacity
        self.loads = np.append(self.loads, 0.0)
        return worker

    def lose(self, worker: SimulatedWorker) -> None:
        del self.workers[worker.id]
        self.sessions -= worker.inflight
        self.capacity -= worker.capacity
        self.loads[worker.index] = np.inf
        for adapter in (*worker.ready_adapters, *worker.loading):
            del self.holders[adapter][worker.id]
        worker.loading = {}
        self._turn()

    def _turn(self) -> None:
        self.ring: Ring = ring_of((worker.id, worker.capacity) for worker in self.workers.values())
        self.listed = list(self.workers.values())

    def occupy(self, worker: SimulatedWorker, adapter: str) -> None:
        worker.inflight += 1
        worker.active_adapters[adapter] = worker.active_adapters.get(adapter, 0) + 1
        self.sessions += 1
        self.loads[worker.index] = worker.inflight / worker.capacity

    def vacate(self, worker: SimulatedWorker, adapter: str) -> None:
        worker.inflight -= 1
        left = worker.active_adapters.pop(adapter) - 1
        if left:
            worker.active_adapters[adapter] = left
        self.sessions -= 1
        self.loads[worker.index] = worker.inflight / worker.capacity

    def load(self, worker: SimulatedWorker, adapter: str, size: int, now_s: float) -> float:
        """Begin to load an adapter; when it is ready."""
        ready_s = max(now_s, worker.link_free_s) + size / self.shape.bandwidth_bytes_per_s
        worker.link_free_s = worker.loading[adapter] = ready_s
        self.holders.setdefault(adapter, {})[worker.id] = worker
        return ready_s

    def loaded(self, worker: SimulatedWorker, adapter: str) -> None:
        """The adapter is there; those used least recently, and not now, make room for it."""
        del worker.loading[adapter]
        worker.ready_adapters[adapter] = None
        excess = len(worker.ready_adapters) - self.shape.cached_adapters
        if excess > 0:
            idle = [name for name in worker.ready_adapters if name not in worker.active_adapters]
            for name in idle[:excess]:
                del worker.ready_adapters[name]
                del self.holders[name][worker.id]


Policy = Callable[[SimulatedFleet, Voice, float], SimulatedWorker | None]
"""`policy(fleet, voice, draw)`: the worker with room that shall have a session, None when there is none."""


@dataclass(slots=True)
class Outcome:
    """What became of the sessions that started after the warm-up, and of the fleet meanwhile."""

    starts: int = 0
    refused: int = 0
    warm: int = 0
    """Starts whose adapter was ready."""
    waits_s: list[float] = field(default_factory=list)
    """Of the starts whose adapter was not."""
    ended: int = 0
    cut: int = 0
    """Sessions at lost workers."""
    moved: int = 0
    """Those of them that found another place."""
    losses: int = 0
    cold_loads: int = 0
    cold_bytes: int = 0
    peaks: list[float] = field(default_factory=list)
    """At each sample: the P99 worker's load over the mean."""
    concurrent: list[int] = field(default_factory=list)
    """At each sample: sessions."""

    @property
    def refused_rate(self) -> float:
        return self.refused / max(1, self.starts)

    @property
    def warm_rate(self) -> float:
        return self.warm / max(1, self.starts - self.refused)

    @property
    def wait_p99_s(self) -> float:
        """Over all starts that were served."""
        waits_s = np.zeros(max(1, self.warm + len(self.waits_s)))
        waits_s[: len(self.waits_s)] = self.waits_s
        return float(np.percentile(waits_s, 99))

    @property
    def p99_over_mean(self) -> float:
        return float(np.mean(self.peaks)) if self.peaks else 0.0

    @property
    def mean_concurrent(self) -> float:
        return float(np.mean(self.concurrent)) if self.concurrent else 0.0

    @property
    def moved_per_loss(self) -> float:
        return self.moved / max(1, self.losses)


class Simulation:
    """One policy on one trace."""

    def __init__(self, trace: Trace, shape: FleetShape, policy: Policy) -> None:
        self.fleet = SimulatedFleet(shape)
        self.outcome = Outcome()
        self._trace = trace
        self._policy = policy
        self._voice_of = trace.voice.tolist()
        self._draw_of = trace.draw.tolist()
        self._reported_from = int(np.searchsorted(trace.start_s, trace.traffic.warm_up_s))
        self._due: list[tuple[float, int, SimulatedWorker, str, int | None]] = []
        """A heap of (when, order among equals, worker, adapter, session that ends; None: the adapter is ready)."""
        self._order = count()

    def run(self) -> Outcome:
        """Play the trace to its end, and the sessions that run then to theirs. Once."""
        lengths_s = self._trace.length_s.tolist()
        changes = list(reversed(self._trace.changes))
        sample_s = self._trace.traffic.warm_up_s
        for session, now_s in enumerate(self._trace.start_s.tolist()):
            while changes and changes[-1][0] <= now_s:
                self._change(*changes.pop())
            self._settle(now_s)
            if now_s >= sample_s:
                self._sample()
                sample_s += SAMPLE_EVERY_S
            self._start(session, lengths_s[session], now_s)
        self._settle(float("inf"))
        return self.outcome

    def _start(self, session: int, length_s: float, now_s: float) -> None:
        wait_s = self._place(session, length_s, now_s)
        if session < self._reported_from:
            return
        self.outcome.starts += 1
        if wait_s is None:
            self.outcome.refused += 1
        elif wait_s:
            self.outcome.waits_s.append(wait_s)
        else:
            self.outcome.warm += 1

    def _place(self, session: int, length_s: float, now_s: float) -> float | None:
        """Give a session a place, and say how long it waits for its adapter there; None when nobody has room."""
        rank = self._voice_of[session]
        voice = _voice(rank)
        worker = self._policy(self.fleet, voice, self._draw_of[session])
        if worker is None:
            return None
        adapter = adapter_of(voice)
        ready_s = now_s
        if adapter in worker.ready_adapters:
            worker.ready_adapters[adapter] = worker.ready_adapters.pop(adapter)
        elif adapter in worker.loading:
            ready_s = worker.loading[adapter]
        else:
            ready_s = self._load(worker, adapter, int(self._trace.adapter_bytes[rank]), now_s, session)
        self.fleet.occupy(worker, adapter)
        worker.sessions[session] = ready_s + length_s
        heappush(self._due, (ready_s + length_s, next(self._order), worker, adapter, session))
        return ready_s - now_s

    def _load(self, worker: SimulatedWorker, adapter: str, size: int, now_s: float, session: int) -> float:
        ready_s = self.fleet.load(worker, adapter, size, now_s)
        heappush(self._due, (ready_s, next(self._order), worker, adapter, None))
        if session >= self._reported_from:
            self.outcome.cold_loads += 1
            self.outcome.cold_bytes += size
        return ready_s

    def _settle(self, now_s: float) -> None:
        """Let everything happen that is due; what a lost worker still had to do is not."""
        due = self._due
        while due and due[0][0] <= now_s:
            _, _, worker, adapter, session = heappop(due)
            if session is None:
                if adapter in worker.loading:
                    self.fleet.loaded(worker, adapter)
            elif worker.sessions.pop(session, None) is not None:
                self.fleet.vacate(worker, adapter)
                self.outcome.ended += session >= self._reported_from

    def _change(self, at_s: float, kind: Literal["join", "loss"], draw: float) -> None:
        self._settle(at_s)
        if kind == "join":
            self.fleet.join()
            return
        lost = self.fleet.listed[int(draw * len(self.fleet.listed))]
        cut = lost.sessions
        lost.sessions = {}
        self.fleet.lose(lost)
        self.outcome.losses += 1
        for session, ends_s in cut.items():
            reported = session >= self._reported_from
            self.outcome.cut += reported
            if self._place(session, ends_s - at_s, at_s) is not None:
                self.outcome.moved += reported

    def _sample(self) -> None:
        loads = self.fleet.loads[np.isfinite(self.fleet.loads)]
        mean = float(loads.mean())
        self.outcome.concurrent.append(self.fleet.sessions)
        if mean:
            self.outcome.peaks.append(float(np.percentile(loads, 99)) / mean)


def workers_needed(trace: Trace, shape: FleetShape, policy: Policy, *, refused: float = 0.01) -> int:
    """How many workers it takes to refuse at most this part of the starts, to a hundredth."""

    def serves(workers: int) -> bool:
        return Simulation(trace, replace(shape, workers=workers), policy).run().refused_rate <= refused

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


def adapter_of(voice: Voice) -> str:
    """The name of a voice's adapter; every simulated voice has one."""
    assert voice.adapter is not None
    return voice.adapter.name


@lru_cache(maxsize=1_000_000)
def _voice(rank: int) -> Voice:
    id = f"voice-{rank}"
    adapter = AdapterVersion(voice_id=id, version=1, lora_id=rank + 1, uri="file:///adapter/", sha256={}, rank=16)
    return Voice(id=id, name=id, model="simulated", adapter=adapter)
