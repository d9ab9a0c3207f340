"""A front door's view of the fleet: refreshed in the background, and updated at once by what happens here.

Between two refreshes a claim made here counts as a session, so that many starts at one moment do not all rush to the
same last place. A worker that is missing from a snapshot stays known for `worker_ttl_s`, and counts for nothing else:
where Redis has lost everything, starts wait for the next heartbeats, and no model is reported as unknown. What is
offered follows from the snapshot alone, so that front doors agree. This module does not know how sessions are spoken.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from time import monotonic

from app.errors import DeadlineExceeded
from app.fleet.placement import Candidate, PlacementIndex, ring_of
from app.fleet.registry import CALL_TIMEOUT_S, Registry
from app.fleet.worker import Worker, WorkerState
from app.platform.settings import Settings
from app.speech.voices import ModelCard, Voice

START_SILENCE_S = 30.0
"""A worker that loads is waited for though it is silent for so long: an import can hold its interpreter."""

log = logging.getLogger(__name__)


class FleetView:
    """The workers as they were at the last refresh, and what has been claimed here since."""

    def __init__(self, registry: Registry, settings: Settings, clock: Callable[[], float] = monotonic) -> None:
        self._registry = registry
        self._worker_ttl_s = settings.worker_ttl_s
        self._clock = clock
        self._workers: dict[str, Worker] = {}
        self._indexes: defaultdict[str, PlacementIndex] = defaultdict(PlacementIndex)
        """By model, of the workers in the last snapshot."""
        self._cards: tuple[ModelCard, ...] | None = ()
        self._absent_since: dict[str, float] = {}
        """When a worker that is known was first missing from a snapshot."""
        self._lost: dict[str, tuple[ModelCard, float]] = {}
        """Models whose last worker is gone, and since when; as long as their sessions wait for another."""
        self._remembered_s = settings.session.move_timeout_s
        self._silent_starts: dict[str, float] = {}
        """When the last worker of a model that was still loading went missing."""
        self._changed = asyncio.Event()

    @property
    def workers(self) -> tuple[Worker, ...]:
        return tuple(self._workers.values())

    @property
    def models(self) -> tuple[ModelCard, ...]:
        """The models the workers hold, each once, and those whose last worker was lost a moment ago."""
        if self._cards is None:
            cards = {name: card for name, (card, _) in self._lost.items()}
            self._cards = tuple((cards | {worker.model.name: worker.model for worker in self.workers}).values())
        return self._cards

    def candidates(self, voice: Voice, *, background: bool = False) -> Iterator[Candidate[Worker]]:
        """Workers with room for `voice`, best first, as `app.fleet.placement` has it."""
        if voice.model not in self._indexes:
            return iter(())
        return self._indexes[voice.model].candidates(voice, background=background)

    def missing(self, worker: Worker) -> bool:
        """Whether `worker`, in this epoch, is gone: in no snapshot for `worker_ttl_s`, or a later start has its id.

        Only snapshots say so: while the registry does not answer, no worker goes missing.
        """
        known = self._workers.get(worker.id)
        return known is None or known.epoch != worker.epoch

    def recovering(self, model: str) -> bool:
        """Whether all active workers of `model` have vanished a moment ago, as they do where Redis has lost them."""
        if not self._absent_since:
            return False
        active = [w for w in self._workers.values() if w.model.name == model and w.state is WorkerState.ACTIVE]
        return bool(active) and all(worker.id in self._absent_since for worker in active)

    def starts(self, model: str) -> bool:
        """Whether no worker of `model` speaks and one of them loads, as its heartbeats say, or said a moment ago."""
        states = {worker.state for worker in self._workers.values() if worker.model.name == model}
        if WorkerState.ACTIVE in states:
            return False
        silent_s = self._clock() - self._silent_starts.get(model, float("-inf"))
        return WorkerState.STARTING in states or silent_s < START_SILENCE_S

    def wait_reason(self, model: str) -> str | None:
        """What to wait for where no worker of `model` speaks; None: nothing that is known here."""
        holders = [worker for worker in self._workers.values() if worker.model.name == model]
        if any(worker.state is WorkerState.ACTIVE for worker in holders):
            return None
        starting = [worker for worker in holders if worker.state is WorkerState.STARTING]
        if starting:
            parts = (f"{worker.id} is starting ({worker.part})" for worker in starting if worker.part)
            return "; ".join(parts) or f"{starting[0].id} is starting"
        if holders:
            return f"the workers of model {model!r} are leaving"
        if model in self._lost:
            return f"the last worker of model {model!r} is gone, and none has started again yet"
        return None

    async def claim(
        self,
        candidate: Candidate[Worker],
        session: str,
        voice: Voice,
        *,
        background: bool = False,
        timeout_s: float = CALL_TIMEOUT_S,
    ) -> bool:
        """Take a place at the candidate; where it is refused, the view is corrected.

        Raises DeadlineExceeded: the place may then be taken or not, and the caller has to release and `vacate` it.
        """
        worker = candidate.worker
        self.occupy(worker, voice, background=background)
        answer = await self._registry.try_claim(
            worker, session, voice, background=background, bound=candidate.bound, timeout_s=timeout_s
        )
        if not answer.claimed:
            if answer.reason in ("over", "full"):
                self._learn(worker.id, answer.sessions, background)
            else:
                self.exclude(worker, background=background)
        return answer.claimed

    async def refresh(self) -> None:
        """Take a snapshot now. Raises DeadlineExceeded."""
        found = {worker.id: worker for worker in await self._registry.snapshot()}
        now_s = self._clock()
        absent = {id: self._absent_since.get(id, now_s) for id in self._workers if id not in found}
        fresh = [w for w in found.values() if self._workers.get(w.id) is not w or w.id in self._absent_since]
        if absent.keys() != self._absent_since.keys() or any(self._turns(worker) for worker in fresh):
            await self._turn(found.values())
        self._absent_since = {id: at_s for id, at_s in absent.items() if now_s - at_s < self._worker_ttl_s}
        for worker in fresh:
            self._put(worker)
        for id in absent:
            self._indexes[self._workers[id].model.name].remove(id)
            if id not in self._absent_since:
                worker = self._workers.pop(id)
                self._lost[worker.model.name] = (worker.model, now_s)
                if worker.state is WorkerState.STARTING:
                    self._silent_starts[worker.model.name] = now_s
                self._cards = None
        for name in [name for name, (_, at_s) in self._lost.items() if now_s - at_s > self._remembered_s]:
            del self._lost[name]
            self._cards = None
        self._wake()

    async def changed(self, timeout_s: float) -> None:
        """Wait until the view changes, at most `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()
        except TimeoutError:
            return

    def occupy(self, worker: Worker, voice: Voice, *, background: bool = False) -> None:
        """Count a session that is being claimed at `worker`."""
        names = {voice.adapter.name} if voice.adapter else set()
        self._adjust(worker.id, +1, names, background)

    def vacate(self, worker: Worker, *, background: bool = False) -> None:
        """Take back one `occupy`: the session has ended. Its adapter counts on until the next refresh."""
        self._adjust(worker.id, -1, set(), background)
        self._wake()

    def exclude(self, worker: Worker, *, background: bool = False) -> None:
        """A place was refused: `worker` counts as full until the next refresh."""
        known = self._workers.get(worker.id)
        if known is not None:
            kind = "background" if background else "inflight"
            self._put(known.model_copy(update={kind: max(getattr(known, kind), known.capacity)}))

    def _learn(self, worker_id: str, sessions: int, background: bool) -> None:
        """A worker has this many sessions, of those that were in the way."""
        known = self._workers.get(worker_id)
        if known is not None:
            counted = {"background": max(0, sessions - known.inflight)} if background else {"inflight": sessions}
            self._put(known.model_copy(update=counted))

    def _adjust(self, worker_id: str, sessions: int, names: set[str], background: bool) -> None:
        worker = self._workers.get(worker_id)
        if worker is None:
            return
        if background:
            names -= worker.active_adapters
            counted = {
                "background": max(0, worker.background + sessions),
                "background_adapters": worker.background_adapters | names,
            }
        else:
            counted = {
                "inflight": max(0, worker.inflight + sessions),
                "active_adapters": worker.active_adapters | names,
                "background_adapters": worker.background_adapters - names,
            }
        self._put(worker.model_copy(update=counted))

    def _put(self, worker: Worker) -> None:
        known = self._workers.get(worker.id)
        if known is None or (known.model is not worker.model and known.model != worker.model):
            self._cards = None
            if known is not None:
                self._indexes[known.model.name].remove(known.id)
        self._workers[worker.id] = worker
        if worker.id not in self._absent_since:
            self._indexes[worker.model.name].put(worker)

    def _turns(self, worker: Worker) -> bool:
        """Whether the ring is another one with what is now known of `worker`."""
        known = self._workers.get(worker.id)
        return known is None or (known.model.name, known.state, known.capacity) != (
            worker.model.name,
            worker.state,
            worker.capacity,
        )

    async def _turn(self, workers: Iterable[Worker]) -> None:
        """Build the rings that these workers need in a thread: a big one takes longer than a frame of audio may wait.

        `ring_of` remembers them.
        """
        members: defaultdict[str, list[tuple[str, int]]] = defaultdict(list)
        for worker in workers:
            if worker.state is WorkerState.ACTIVE:
                members[worker.model.name].append((worker.id, worker.capacity))
        for of_one_model in members.values():
            await asyncio.to_thread(ring_of, of_one_model)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _watch(self, every_s: float) -> None:
        while True:
            try:
                await self.refresh()
            except DeadlineExceeded as error:
                log.warning("registry unreachable", extra={"error": error.message})
            await asyncio.sleep(every_s)


@asynccontextmanager
async def open_fleet(registry: Registry, settings: Settings) -> AsyncIterator[FleetView]:
    """A view that is kept fresh while the context lasts."""
    fleet = FleetView(registry, settings)
    with suppress(DeadlineExceeded):
        await fleet.refresh()
    watcher = asyncio.create_task(fleet._watch(settings.fleet_refresh_s), name="fleet")
    try:
        yield fleet
    finally:
        watcher.cancel()
        await asyncio.gather(watcher, return_exceptions=True)
