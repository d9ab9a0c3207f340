"""Places at workers: found by placement, claimed in the registry, dialled, waited for, and given back.

It knows neither what a session does at its place nor what it is for.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from app.errors import (
    AdapterUnavailable,
    CarillonError,
    DeadlineExceeded,
    EngineFailed,
    Overloaded,
    StoreUnavailable,
    UnknownModel,
    WorkerLost,
)
from app.fleet.placement import Candidate
from app.fleet.registry import CALL_TIMEOUT_S, Registry
from app.fleet.view import FleetView
from app.fleet.worker import Worker, WorkerState
from app.platform.settings import Settings
from app.realtime.worker_client import WorkerConnection, dial
from app.speech.protocol import Assign, AssignedPace, Resumption
from app.speech.text.options import TextOptions
from app.speech.voices import Voice

RETRY_AFTER_S = 2.0
"""Sent to a client refused for want of room: about a short sentence's time."""

MIN_CLAIM_S = 1.0
"""A claim is waited for so long, whatever a start's patience."""

AWAY_RETRY_S = 0.2
"""After which a registry that is away is retried."""

START_POLL_S = 1.0
"""After which a worker that starts is checked again."""

RESTART_RETRY_AFTER_S = 5.0
"""Sent to a client that no worker can serve until one has started."""

LOST = (WorkerLost, EngineFailed, DeadlineExceeded, Overloaded)
"""Errors of the worker and not of the session, which can continue elsewhere."""

UNFIT = (*LOST, StoreUnavailable, AdapterUnavailable)
"""Why a worker is passed over: another may have the adapter, or a disk with room for it."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Lease:
    """What is requested of one worker after the other: a place for a session of this id."""

    id: str
    voice: Voice
    pace: AssignedPace
    temperature: float | None
    resume: Resumption | None = None
    text: TextOptions = field(default_factory=TextOptions)

    @property
    def background(self) -> bool:
        return self.pace == "background"

    def assignment_to(self, worker: Worker) -> Assign:
        return Assign(
            session=self.id,
            epoch=worker.epoch,
            voice=self.voice,
            temperature=self.temperature,
            pace=self.pace,
            resume=self.resume,
            text=self.text,
        )


@dataclass(frozen=True, slots=True)
class Place:
    """A session's place at a worker, which has sent `ready` on this connection."""

    lease: Lease
    connection: WorkerConnection
    queue_ms: float
    route_ms: float


class Placer:
    """Finds places at the fleet's workers for leases, and gives them back."""

    def __init__(
        self,
        fleet: FleetView,
        registry: Registry,
        settings: Settings,
        clock: Callable[[], float] = monotonic,
        *,
        crowded: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`crowded` is called with a model when a session begins to wait for one of its places."""
        self.settings = settings
        self._crowded = crowded
        self._fleet = fleet
        self._registry = registry
        self._clock = clock
        self._endings: set[asyncio.Task[None]] = set()
        self.waiting: Counter[str] = Counter()
        """Sessions that wait for a place, those in the background left out, by model."""

    def now(self) -> float:
        """On the clock of the connections' deadlines."""
        return self._clock()

    def wait_reason(self, voice: Voice) -> str:
        """What a session that moves waits for, in words."""
        return self._fleet.wait_reason(voice.model) or f"the workers of model {voice.model!r} have no room yet"

    def has_spare_place(self, voice: Voice) -> bool:
        """Whether a background session with `voice` would find room now, as far as is known here."""
        return any(True for _ in self._fleet.candidates(voice, background=True))

    def has_room(self, voice: Voice) -> bool:
        """Whether another session with `voice` would find room now, as far as is known here."""
        return any(True for _ in self._fleet.candidates(voice))

    def has_room_beside(self, worker: Worker, voice: Voice) -> bool:
        """Whether another worker than `worker` seems to have room for a session with `voice`."""
        return any(candidate.worker.id != worker.id for candidate in self._fleet.candidates(voice))

    def avoid(self, worker: Worker) -> None:
        """Try others first until the next refresh of the fleet: a session was lost there."""
        self._fleet.exclude(worker)

    async def place(self, lease: Lease, *, patience_s: float) -> Place:
        """Walk the candidates until one has taken the session; wait for room while there is none.

        A session that goes on waits for workers even while there is none at all.
        """
        asked_at = self._clock()
        faults: dict[str, CarillonError] = {}
        while True:
            away: DeadlineExceeded | None = None
            for candidate in self._fleet.candidates(lease.voice, background=lease.background):
                worker = candidate.worker
                if isinstance(faults.get(worker.id), AdapterUnavailable):
                    continue
                try:
                    if not await self._claim(candidate, lease, self._remaining_s(lease, asked_at, patience_s)):
                        continue
                except DeadlineExceeded as error:
                    away = error  # the registry: no other candidate would fare better
                    break
                claimed_at = self._clock()
                try:
                    connection = await self._dial(worker, lease)
                except UNFIT as error:
                    if not isinstance(error, Overloaded):
                        faults[worker.id] = error
                    if isinstance(error, LOST):  # the others are of this voice, and no reason to keep others away
                        self._fleet.exclude(worker, background=lease.background)
                    log.warning("worker passed over", extra={"worker": worker.id, "code": error.code})
                    continue
                log.info("session placed", extra={"worker": worker.id, "session": lease.id, "reason": candidate.reason})
                queue_ms, route_ms = _ms(asked_at, claimed_at), _ms(claimed_at, self._clock())
                return Place(lease, connection, queue_ms, route_ms)
            remaining_s = self._remaining_s(lease, asked_at, patience_s)
            waits_for_any = lease.resume or self._holders(lease.voice)
            if lease.resume and self._fleet.starts(lease.voice.model):
                remaining_s = max(remaining_s, START_POLL_S)  # while a worker starts, it is waited for
            if remaining_s <= 0 or not waits_for_any or self._is_unusable(lease.voice, faults):
                raise self._no_room(lease.voice, faults, away)
            await self._wait(lease, min(remaining_s, AWAY_RETRY_S) if away else remaining_s)

    async def _wait(self, lease: Lease, timeout_s: float) -> None:
        """Until the fleet changes, or `timeout_s` has passed."""
        self.waiting[lease.voice.model] += not lease.background
        if not lease.background and not self._fleet.recovering(lease.voice.model):
            self._crowded(lease.voice.model)
        try:
            await self._fleet.changed(timeout_s)
        finally:
            self.waiting[lease.voice.model] -= not lease.background

    async def vacate(self, place: Place, *, wait: bool) -> None:
        """End a session at its worker and release its place: to its end, whether that is waited for or not."""
        await self._finish(self._end(place), wait=wait)

    async def aclose(self) -> None:
        """Wait for sessions that are being ended."""
        await asyncio.gather(*self._endings, return_exceptions=True)

    def _remaining_s(self, lease: Lease, asked_at: float, patience_s: float) -> float:
        """How much longer to wait; at least until workers that the registry has just lost may be back."""
        if self._fleet.recovering(lease.voice.model):
            patience_s = max(patience_s, self.settings.worker_ttl_s)
        return asked_at + patience_s - self._clock()

    def _holders(self, voice: Voice) -> list[Worker]:
        return [worker for worker in self._fleet.workers if worker.model.name == voice.model]

    def _is_unusable(self, voice: Voice, faults: Mapping[str, CarillonError]) -> bool:
        """Whether no worker there is can load the voice's adapter."""
        active = [worker for worker in self._holders(voice) if worker.state is WorkerState.ACTIVE]
        return bool(active) and all(isinstance(faults.get(worker.id), AdapterUnavailable) for worker in active)

    def _no_room(
        self, voice: Voice, faults: Mapping[str, CarillonError], away: DeadlineExceeded | None
    ) -> CarillonError:
        """Why there is none, where `faults` has what is wrong with which worker. One that is only full is enough.

        `away` is what the registry last failed with.
        """
        if away is not None:
            return Overloaded(away.message, retry_after_s=RETRY_AFTER_S)
        holders = self._holders(voice)
        active = [worker for worker in holders if worker.state is WorkerState.ACTIVE]
        if (reason := self._fleet.wait_reason(voice.model)) is not None:
            retry_after_s = RESTART_RETRY_AFTER_S
            return Overloaded(f"{reason}; try again in {retry_after_s:g} s", retry_after_s=retry_after_s)
        if not holders:
            served = ", ".join(sorted(card.name for card in self._fleet.models)) or "none"
            return UnknownModel(f"no worker serves model {voice.model!r} now; served are: {served}", param="model")
        if self._fleet.recovering(voice.model):
            return Overloaded(
                f"the registry has lost the workers of model {voice.model!r}; try again in {RETRY_AFTER_S:g} s",
                retry_after_s=RETRY_AFTER_S,
            )
        if all(worker.id in faults for worker in active):
            return faults[active[-1].id]
        places = sum(worker.capacity for worker in active)
        return Overloaded(
            f"all {places} places for model {voice.model!r} are taken; try again in {RETRY_AFTER_S:g} s",
            retry_after_s=RETRY_AFTER_S,
        )

    async def _claim(self, candidate: Candidate[Worker], lease: Lease, patience_s: float) -> bool:
        """Raises DeadlineExceeded when the registry does not answer."""
        timeout_s = min(CALL_TIMEOUT_S, max(patience_s, MIN_CLAIM_S))
        try:
            return await self._fleet.claim(
                candidate, lease.id, lease.voice, background=lease.background, timeout_s=timeout_s
            )
        except BaseException as error:
            # Redis may have granted it before we stopped listening; if this fails too, the lease expires.
            ending = self._release(candidate.worker, lease)
            await self._finish(ending, wait=not isinstance(error, DeadlineExceeded))
            raise

    async def _dial(self, worker: Worker, lease: Lease) -> WorkerConnection:
        """Connect, assign, await `ready`; on any failure the lease is given back."""
        try:
            return await dial(worker, lease.assignment_to(worker), self.settings, self._clock)
        except BaseException:
            await self._finish(self._release(worker, lease))
            raise

    async def _finish(self, ending: Coroutine[Any, Any, None], *, wait: bool = True) -> None:
        """Await `ending`, which goes on to its end even if the caller is cancelled meanwhile."""
        task = asyncio.create_task(ending)
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)
        if wait:
            await asyncio.shield(task)

    async def _end(self, place: Place) -> None:
        try:
            await place.connection.close()
        finally:
            await self._release(place.connection.worker, place.lease)

    async def _release(self, worker: Worker, lease: Lease) -> None:
        try:
            await self._registry.release(worker.id, lease.id)
        except DeadlineExceeded as error:
            log.warning(
                "lease left to expire", extra={"worker": worker.id, "session": lease.id, "error": error.message}
            )
        finally:
            self._fleet.vacate(worker, background=lease.background)


def _ms(start_s: float, end_s: float) -> float:
    return round((end_s - start_s) * 1000, 3)
