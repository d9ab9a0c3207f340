"""Routes sessions to the fleet: finds a place for each, and supervises it while it speaks.

`SessionRouter.open` is all that the edges know of the fleet. It knows neither dialects, formats, credits and clients,
nor how places are found (`placing`), nor what a session does at its place (`session`).
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from heapq import nlargest
from operator import itemgetter
from time import monotonic

from app.fleet.registry import Registry
from app.fleet.view import FleetView
from app.fleet.worker import Worker
from app.platform.settings import Settings
from app.platform.tracing import span
from app.realtime.journal import Journal
from app.realtime.placing import Lease, Place, Placer
from app.realtime.session import Meter, RoutedSession
from app.speech.protocol import AssignedPace
from app.speech.text.options import MarkupKind, TextOptions
from app.speech.voices import ModelCard, Voice

Pronunciations = Callable[[Voice], Awaitable[Mapping[str, str]]]

WATCH_INTERVAL_S = 0.5
"""How often sessions are checked whose worker may have vanished, or wants them gone."""

ROOM_INTERVAL_S = 0.05
"""At least so much lies between two looks for sessions that could make room."""

LEAST_IDLE_SHARE = 0.01
"""Of `idle_place_s`: for so long a session that has just started or spoken is left its place, as text may follow."""

log = logging.getLogger(__name__)


class SessionRouter:
    """Opens sessions at the fleet's workers."""

    def __init__(
        self,
        fleet: FleetView,
        registry: Registry,
        settings: Settings,
        clock: Callable[[], float] = monotonic,
        *,
        pronunciations: Pronunciations | None = None,
    ) -> None:
        """`pronunciations` gives the current caller's dictionary for a voice."""
        self._pronunciations = pronunciations
        self.settings = settings
        self.placer = Placer(fleet, registry, settings, clock, crowded=self._make_room)
        self._fleet = fleet
        self._clock = clock
        self._sessions: set[RoutedSession] = set()
        self._watcher: asyncio.Task[None] | None = None
        self._made_room_at = float("-inf")

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
        text: TextOptions | None = None,
        meter: Meter | None = None,
    ) -> AsyncIterator[RoutedSession]:
        """A session with `voice`, at the worker that placement ranks first of those with room.

        Waits `session.queue_timeout_s` for room; in the "background" for spare room, and the session may end at any
        time with Overloaded, when that is claimed. With the `journal` of a session that was broken off it goes on with
        that, at `from_sample` if that is still kept, and waits for room as one that moves. A new one's journal keeps
        `keep_s` of audio resumable. `text` says how text is read; without, it is plain text in the voice's language.
        `meter` counts what it uses. Raises Overloaded, UnknownModel, WorkerLost, DeadlineExceeded, or what the worker
        refuses with. Leaving the context ends the session at the worker and releases its place.
        """
        limits = self.settings.session
        text = text or TextOptions(markup=MarkupKind.PLAIN, language=voice.language)
        if self._pronunciations is not None:
            text = replace(text, respellings=tuple((await self._pronunciations(voice)).items()))
        lease, commands = Lease(uuid.uuid4().hex, voice, pace, temperature, text=text), []
        if journal is not None and not journal.is_new:
            resumption, commands = journal.move(from_sample=from_sample)
            lease = replace(lease, resume=resumption)
        patience_s = limits.queue_timeout_s if journal is None else limits.move_timeout_s
        with span("place", voice=voice.id, model=voice.model):
            place = await self.placer.place(lease, patience_s=patience_s)
        session = RoutedSession(
            self.placer,
            place,
            journal or self._new_journal(lease, place, keep_s),
            meter=meter,
        )
        self._sessions.add(session)
        if self._watcher is None or self._watcher.done():
            self._watcher = asyncio.create_task(self._watch(), name="sessions' watcher")
        try:
            await session.resend(commands)
            with span("speak", voice=voice.id, pace=pace) as speaking:
                try:
                    yield session
                finally:
                    speaking.note(worker=session.worker.id, moves=session.moves)
        finally:
            self._sessions.discard(session)
            await session.leave()

    @staticmethod
    def _new_journal(lease: Lease, place: Place, keep_s: float) -> Journal | None:
        if lease.background:
            return None
        card = place.connection.worker.model
        rate_hz = card.sample_rate_hz
        keep_samples = round(keep_s * rate_hz)
        options = replace(lease.text, respellings=())  # of no use where markup is read
        return Journal(tags=card.tags, sample_rate_hz=rate_hz, keep_samples=keep_samples, options=options)

    def _make_room(self, model: str) -> None:
        """Have as many sessions rest as wait for a place, those first that have been idle for longest."""
        now = self._clock()
        if now - self._made_room_at < ROOM_INTERVAL_S:
            return  # a waiting session retries with the fleet's next refresh at the latest
        self._made_room_at = now
        least_s = LEAST_IDLE_SHARE * self.settings.session.idle_place_s
        sessions = (session for session in self._sessions if session.voice.model == model)
        idle = [(idle_s, session) for session in sessions if (idle_s := session.idle_s(now)) >= least_s]
        for _, session in nlargest(self.placer.waiting[model], idle, key=itemgetter(0)):
            session.rest()

    async def aclose(self) -> None:
        """Wait for sessions that are being ended."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
        await self.placer.aclose()

    async def _watch(self) -> None:
        """Watch the sessions for as long as there are any."""
        while self._sessions:
            for session in tuple(self._sessions):
                session.check_worker(self._fleet.missing, self._clock(), self.settings.worker_ttl_s)
                session.rest_if_idle(self._clock())
            await asyncio.sleep(WATCH_INTERVAL_S)
