"""The way to the fleet's workers: find a place, claim it, dial, wait for room, and give the place back.

`Upstream.open` is all that the edges know of the fleet. It does not know dialects, formats, credits or clients, nor
what a session does at its place.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from time import monotonic
from typing import Any

from app.errors import AdapterUnavailable, CarillonError, DeadlineExceeded, Overloaded, StoreUnavailable, UnknownModel
from app.fleet.placement import Candidate
from app.fleet.registry import CALL_TIMEOUT_S, Registry
from app.fleet.view import Fleet
from app.platform.settings import Settings
from app.realtime.journal import Journal
from app.realtime.session import LOST, Lease, Place, UpstreamSession
from app.realtime.worker_client import WorkerConnection, dial
from app.speech.protocol import AssignedPace
from app.speech.voices import ModelCard, Voice, Worker, WorkerState

RETRY_AFTER_S = 2.0
"""What a client refused for want of room is told: about a short sentence's time."""

MIN_CLAIM_S = 1.0
"""A claim is waited for so long, whatever a start's patience."""

AWAY_RETRY_S = 0.2
"""After which a registry that is away is asked again."""

START_LOOK_S = 1.0
"""After which it is looked again whether a worker that starts still does."""

RESTART_RETRY_AFTER_S = 5.0
"""What a client is told that no worker can serve until one has started."""

WATCH_INTERVAL_S = 0.5
"""How often sessions are looked at whose worker may have vanished, or wants them gone."""

UNFIT = (*LOST, StoreUnavailable, AdapterUnavailable)
"""Why a worker is passed over: another may have the adapter, or a disk with room for it."""

log = logging.getLogger(__name__)


class Upstream:
    """The way to the fleet's workers."""

    def __init__(
        self, fleet: Fleet, registry: Registry, settings: Settings, clock: Callable[[], float] = monotonic
    ) -> None:
        self.settings = settings
        self._fleet = fleet
        self._registry = registry
        self._clock = clock
        self._sessions: set[UpstreamSession] = set()
        self._watcher: asyncio.Task[None] | None = None
        self._endings: set[asyncio.Task[None]] = set()

    def now(self) -> float:
        """On the clock of the connections' deadlines."""
        return self._clock()

    @property
    def models(self) -> tuple[ModelCard, ...]:
        """What the fleet can speak with now."""
        return self._fleet.models

    @property
    def workers(self) -> tuple[Worker, ...]:
        return self._fleet.workers

    @asynccontextmanager
    async def open(
        self,
        voice: Voice,
        *,
        pace: AssignedPace = "realtime",
        temperature: float | None = None,
        journal: Journal | None = None,
        from_sample: int | None = None,
        keep_s: float = 0,
    ) -> AsyncIterator[UpstreamSession]:
        """A session with `voice`, at the worker placement likes best of those with room.

        Waits `session.queue_timeout_s` for room; in the "background" for room that nobody else wants, and the session
        may end at any time with Overloaded, for somebody who does. With the `journal` of a session that was broken off
        it goes on with that, at `from_sample` if that is still kept, and waits for room as one that moves. A new one's
        journal keeps `keep_s` of audio resumable. Raises Overloaded, UnknownModel, WorkerLost, DeadlineExceeded, or
        what the worker refuses with. Leaving the context ends the session at the worker and releases its place.
        """
        limits = self.settings.session
        lease, commands = Lease(uuid.uuid4().hex, voice, pace, temperature), []
        if journal is not None and not journal.is_new:
            resumption, commands = journal.move(from_sample=from_sample)
            lease = replace(lease, resume=resumption)
        patience_s = limits.queue_timeout_s if journal is None else limits.move_timeout_s
        place = await self.place(lease, patience_s=patience_s)
        session = UpstreamSession(self, place, journal or self._new_journal(lease, place, keep_s))
        self._sessions.add(session)
        if self._watcher is None or self._watcher.done():
            self._watcher = asyncio.create_task(self._watch(), name="sessions' watcher")
        try:
            await session.tell(commands)
            yield session
        finally:
            self._sessions.discard(session)
            await session.leave()

    @staticmethod
    def _new_journal(lease: Lease, place: Place, keep_s: float) -> Journal | None:
        if lease.background:
            return None
        card = place.connection.worker.model
        rate_hz = card.sample_rate_hz
        return Journal(tags=card.tags, sample_rate_hz=rate_hz, keep_samples=round(keep_s * rate_hz))

    def awaited(self, voice: Voice) -> str:
        """What a session that moves waits for, in words."""
        return self._fleet.awaited(voice.model) or f"the workers of model {voice.model!r} have no room yet"

    def has_spare_place(self, voice: Voice) -> bool:
        """Whether a background session with `voice` would find room now, as far as is known here."""
        return any(True for _ in self._fleet.candidates(voice, background=True))

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
                remaining_s = max(remaining_s, START_LOOK_S)  # while a worker starts, it is waited for
            if remaining_s <= 0 or not waits_for_any or self._is_unusable(lease.voice, faults):
                raise self._no_room(lease.voice, faults, away)
            await self._fleet.changed(min(remaining_s, AWAY_RETRY_S) if away else remaining_s)

    def _remaining_s(self, lease: Lease, asked_at: float, patience_s: float) -> float:
        """How much longer to wait; at least until workers that the registry has just lost may be back."""
        if self._fleet.settling(lease.voice.model):
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
        """Why there is none, where `faults` tells what is wrong with which worker. One that is only full is enough.

        `away` is what the registry last failed with.
        """
        if away is not None:
            return Overloaded(away.message, retry_after_s=RETRY_AFTER_S)
        holders = self._holders(voice)
        active = [worker for worker in holders if worker.state is WorkerState.ACTIVE]
        if (awaited := self._fleet.awaited(voice.model)) is not None:
            retry_after_s = RESTART_RETRY_AFTER_S
            return Overloaded(f"{awaited}; try again in {retry_after_s:g} s", retry_after_s=retry_after_s)
        if not holders:
            served = ", ".join(sorted(card.name for card in self.models)) or "none"
            return UnknownModel(f"no worker serves model {voice.model!r} now; served are: {served}", param="model")
        if self._fleet.settling(voice.model):
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

    def has_room_beside(self, session: UpstreamSession) -> bool:
        """Whether another worker than that of `session` seems to have room for it."""
        return any(candidate.worker.id != session.worker.id for candidate in self._fleet.candidates(session.voice))

    def avoid(self, worker: Worker) -> None:
        """Ask others first until the next look at the fleet: a session was lost there."""
        self._fleet.exclude(worker)

    async def vacate(self, place: Place, *, wait: bool) -> None:
        """End a session at its worker and release its place: to its end, whether that is waited for or not."""
        await self._finish(self._end(place), wait=wait)

    async def _finish(self, ending: Coroutine[Any, Any, None], *, wait: bool = True) -> None:
        """Await `ending`, which goes on to its end even if the caller is cancelled meanwhile."""
        task = asyncio.create_task(ending)
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)
        if wait:
            await asyncio.shield(task)

    async def aclose(self) -> None:
        """Wait for sessions that are being ended."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
        await asyncio.gather(*self._endings, return_exceptions=True)

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

    async def _watch(self) -> None:
        """Look after the sessions for as long as there are any."""
        while self._sessions:
            for session in tuple(self._sessions):
                session.look(self._fleet.missing, self._clock(), self.settings.worker_ttl_s)
            await asyncio.sleep(WATCH_INTERVAL_S)


def _ms(start_s: float, end_s: float) -> float:
    return round((end_s - start_s) * 1000, 3)
