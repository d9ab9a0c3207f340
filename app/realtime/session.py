"""One session for an edge, with failover: it continues at another worker when its own is lost or drained.

A session that an edge holds ends with `done` or with its own fault, not with its worker. It knows neither how workers
are chosen (`app.realtime.router`) nor dialects, formats, credits or clients.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from app.errors import CarillonError, DeadlineExceeded, SessionIdle, SpeechFailed, WorkerLost
from app.fleet.worker import Worker
from app.realtime.journal import Journal
from app.realtime.placing import LOST, Place, Placer
from app.realtime.underruns import Underruns
from app.realtime.worker_client import BYTES_PER_SAMPLE, Command, Event, WorkerConnection
from app.speech.latency import Ledger
from app.speech.protocol import (
    AudioFrame,
    Begun,
    Cancel,
    Cancelled,
    Done,
    Eos,
    Error,
    Flush,
    Flushed,
    Resumption,
    Segment,
    Text,
    Utter,
    Waiting,
)
from app.speech.text.spoken import has_rules, is_silent
from app.speech.voices import Voice

MAX_MOVES_PER_CHUNK = 5
"""A text over which this many workers were lost is at fault itself, and must not crash one after the other."""

CROWDED_IDLE_SHARE = 0.1
"""Of `idle_place_s`, after which an idle session makes room where there is none."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Used:
    """What a session has used already, on another connection, and the name under which that is recorded."""

    id: str = field(default_factory=lambda: f"ses-{uuid.uuid4().hex}")
    characters: int = 0
    audio_s: float = 0.0


class Meter:
    """Counts what a session uses; this one counts nothing."""

    async def text(self, chars: int) -> None:
        """Text that is about to be sent. Raises what keeps it from that."""

    def audio(self, audio_s: float) -> None:
        """Audio that has come."""


class RoutedSession:
    """One session, at one worker after the other. Iterate it for events; it ends after `done`.

    Raises what the session itself has done wrong; WorkerLost when its worker is gone and no other took it in time;
    SpeechFailed when one worker after the other was lost over the same text. A background session does not move: it
    raises what its worker's end was.
    """

    def __init__(
        self,
        placer: Placer,
        place: Place,
        journal: Journal | None,
        *,
        meter: Meter | None = None,
    ) -> None:
        options = place.lease.text
        unread = options.normalise and not has_rules(options.language_code)
        self.ready = place.connection.ready.model_copy(update={"ignored": ("normalise",) if unread else ()})
        self.queue_ms = place.queue_ms
        self.route_ms = place.route_ms
        self.moves = 0
        self._meter = meter or Meter()
        self._placer = placer
        self._place: Place | None = place
        self._lease = place.lease
        self._worker = place.connection.worker
        self._journal = journal
        self._sending = asyncio.Lock()
        """Held while the session moves, so that what is sent again comes before what follows."""
        self._moves_in_chunk = 0
        self._moving: asyncio.Task[None] | None = None
        self._leaving = False
        self._over = False
        self._active_at = placer.now()
        """When it last had words to speak, or audio of them came."""
        self._moved_idle = False
        """It was moved with nothing to speak, and has had nothing since."""
        self._resting = False
        self._asked: deque[Command] = deque()
        """What it is sent while it rests."""
        self._woken = asyncio.Event()
        self._underruns = Underruns(self.ready.sample_rate_hz, placer.now)

    @property
    def worker(self) -> Worker:
        """Where it is, or was last."""
        return self._worker

    @property
    def voice(self) -> Voice:
        return self._lease.voice

    @property
    def journal(self) -> Journal:
        """What it would need to go on elsewhere. A background session has none."""
        assert self._journal is not None
        return self._journal

    @property
    def pending_chars(self) -> int:
        """Characters of text that it has been sent and has not begun to speak."""
        return self._journal.pending_chars if self._journal else 0

    def spoken_text(self, until: int) -> str:
        """The words of the present turn that are played by the sample `until`."""
        return self._journal.spoken_text(until) if self._journal else ""

    async def send(self, command: Command) -> None:
        """Send a command; its session id is replaced. While the session moves, commands wait.

        Raises DeadlineExceeded in the background, when the worker reads nothing, WorkerLost when it was left, and what
        the meter does.
        """
        if isinstance(command, Text):
            await self._meter.text(len(command.text))
        async with self._sending:
            if self._journal is None or isinstance(command, Utter):
                await self._connection().send(command)
                return
            commands = self._journal.sent(command)
            if any(isinstance(part, Text) and not is_silent(part.text) for part in commands):
                self._active_at = self._placer.now()
                self._moved_idle = False
            if self._resting:
                self._asked.extend(commands)
                self._woken.set()
            await self.resend(commands)

    def __aiter__(self) -> RoutedSession:
        return self

    async def __anext__(self) -> Event:
        while not self._over:
            if self._moving is not None and (waiting := await self._moved(self._moving)):
                return waiting
            if self._resting and self._place is None and self._journal is not None:
                if answer := await self._rest(self._journal):
                    return answer
                continue
            try:
                event = await self._next()
            except LOST as error:
                if self._journal is None or isinstance(error, SessionIdle):
                    raise
                if self._resting or self._rests_after(self._journal):
                    await self._give_up_place(wait=False)
                    continue
                self._moving = asyncio.create_task(self._move(error, self._journal), name="session moves")
            else:
                if not isinstance(event, Begun):
                    return event
        raise StopAsyncIteration

    async def _moved(self, moving: asyncio.Task[None]) -> Waiting | None:
        """None once the session is at another worker; until then, now and then, what it waits for.

        Raises what the move ended with.
        """
        await asyncio.wait([moving], timeout=self._placer.settings.session.waiting_notice_s)
        if not moving.done():
            return Waiting(session=self._lease.id, reason=self._placer.wait_reason(self._lease.voice))
        self._moving = None
        await moving
        return None

    async def _next(self) -> Event:
        connection = self._connection()
        event = await self._receive(connection)
        if isinstance(event, AudioFrame):
            self._hear(event)
            return event
        if isinstance(event, Error) and event.closed:
            raise event.rebuilt()
        if isinstance(event, Done):
            self._over = True
            ignored = self._journal.ignored if self._journal else ()
            return event.model_copy(update={"ledger": self._completed(event.ledger), "ignored": ignored})
        if self._journal is not None:
            if isinstance(event, Cancelled) and self._lease.resume:
                # The worker knows only what it spoke itself.
                event = event.model_copy(update={"spoken_text": self._journal.text_before_cancel()})
            self._journal.received(event)
            self._note_gaps(event)
            if isinstance(event, Begun | Segment):
                self._active_at = self._placer.now()
            if isinstance(event, Segment):
                if span := self._journal.written_span:
                    event = event.model_copy(update={"start_char": span[0], "end_char": span[1]})
                self._moves_in_chunk = 0
                self._leave_drained(connection, self._placer.now())
        return event

    def _hear(self, frame: AudioFrame) -> None:
        if self._journal is None:
            return
        counted = self._journal.all_samples
        self._journal.heard(frame)
        self._meter.audio((self._journal.all_samples - counted) / self.ready.sample_rate_hz)
        self._underruns.received(len(frame.audio) // BYTES_PER_SAMPLE)
        self._active_at = self._placer.now()

    def _note_gaps(self, event: Event) -> None:
        match event:
            case Begun():
                self._underruns.begun()
            case Segment():
                self._underruns.ended()
            case Cancelled():
                self._underruns.stopped()
            case _:
                pass

    def _connection(self) -> WorkerConnection:
        """To the present worker. Raises WorkerLost where that was left and no other took the session."""
        if self._place is None:
            raise WorkerLost(f"worker {self._worker.id} was left, and no other took the session")
        return self._place.connection

    async def _receive(self, connection: WorkerConnection) -> Event:
        """What the worker sends next. One that is silent but lives is waited for while no other has room: to begin
        again with the same worker would only make it slower."""
        while True:
            try:
                return await connection.next()
            except DeadlineExceeded:
                patience_s = self._placer.settings.session.move_timeout_s
                if (
                    self._journal is None
                    or connection.silence_s > patience_s
                    or self._placer.has_room_beside(self._worker, self.voice)
                ):
                    raise
                log.warning("worker is slow", extra={"worker": self._worker.id, "session": self._lease.id})

    def _completed(self, ledger: Ledger) -> Ledger:
        facts = {
            "queue_ms": self.queue_ms,
            "route_ms": self.route_ms,
            "moves": self.moves,
            "underruns": self._underruns.count,
            "underrun_ms": round(1000 * self._underruns.seconds, 1),
        }
        return ledger.model_copy(update=facts)

    # Going on elsewhere.

    def check_worker(self, missing: Callable[[Worker], bool], now: float, silence_s: float) -> None:
        """Break the connection to a worker that has vanished and is silent, or that drains and has had its time."""
        if self._place is None or self._journal is None:
            return
        if self._place.connection.silence_s > silence_s and missing(self._worker):
            self._place.connection.abort()
        elif self._journal.between_chunks:
            self._leave_drained(self._place.connection, now)

    # Without a place while there is nothing to speak.

    def rest_if_idle(self, now: float) -> None:
        """Give the place back where there has been nothing to speak for a while, and sooner where no other is free.

        It is taken again with the next text; until then the session is answered here. A `flush` or a `cancel` is
        nothing to speak, and a text without words is none.
        """
        idle_s, idle_place_s = self.idle_s(now), self._placer.settings.session.idle_place_s
        if idle_s <= CROWDED_IDLE_SHARE * idle_place_s:
            return
        if idle_s > idle_place_s or not self._placer.has_room(self.voice):
            self.rest()

    def idle_s(self, now: float) -> float:
        """How long it has had a place and nothing to speak; 0 where it has no place to give back, or needs it."""
        if self._place is None or self._journal is None or self._resting or self._moving is not None:
            return 0.0
        if not _owed_nothing(self._journal):
            return 0.0
        # A worker that paces sends nothing while its listener hears what there is.
        return now - max(self._active_at, self._place.connection.played_until)

    def rest(self) -> None:
        """Give the place of an idle session back."""
        assert self._place is not None
        log.info("session rests", extra={"session": self._lease.id, "worker": self._worker.id})
        self._resting = True
        self._place.connection.abort()

    def _rests_after(self, journal: Journal) -> bool:
        """Whether a session that lost its worker stays without a place until its next text.

        The first time, with nothing to speak, it goes to another worker, where its voice is then at hand. Lost there
        too, it would be handed on for ever between workers that break.
        """
        if not _owed_nothing(journal):
            return False
        if not self._moved_idle:
            self._moved_idle = True
            return False
        log.info("session rests", extra={"session": self._lease.id, "worker": self._worker.id})
        self._leaving, self._resting = False, True
        return True

    async def _rest(self, journal: Journal) -> Flushed | Cancelled | Done | None:
        """An answer to what needs no worker; None once the session goes to one again.

        Raises SessionIdle when nothing is sent for as long as a worker would wait.
        """
        idle_timeout_s = self._placer.settings.session.idle_timeout_s
        while not self._asked:
            self._woken.clear()
            try:
                async with asyncio.timeout(idle_timeout_s):
                    await self._woken.wait()
            except TimeoutError:
                raise SessionIdle(f"no text for {idle_timeout_s:g} s; start a new session when there is some") from None
        command = self._asked.popleft()
        answer: Flushed | Cancelled | None = None
        if isinstance(command, Eos) and not journal.awaits_speech:
            self._over = True
            ledger = Ledger(samples=journal.samples, tokens=journal.tokens, sample_rate_hz=self.ready.sample_rate_hz)
            ledger = self._completed(ledger)
            return Done(session=self._lease.id, samples=journal.samples, ledger=ledger, ignored=journal.ignored)
        if isinstance(command, Flush) and not journal.awaits_speech:
            answer = Flushed(session=self._lease.id, samples=journal.samples)
        elif isinstance(command, Cancel):
            words = journal.text_before_cancel()
            generation, samples = journal.generation + 1, journal.samples
            answer = Cancelled(session=self._lease.id, generation=generation, spoken_text=words, samples=samples)
        elif isinstance(command, Text) and not journal.awaits_speech:
            return None  # it stays in the journal, and comes with the words that follow
        if answer is not None:
            journal.received(answer)
            return answer
        self._resting = False
        self._asked.clear()  # the journal has it all
        self._active_at = self._placer.now()
        self._moving = asyncio.create_task(self._return(journal), name="session returns")
        return None

    async def _return(self, journal: Journal) -> None:
        """Take a place again. Raises Overloaded or what else kept every worker from it."""
        async with self._sending:
            resumption, commands = journal.move()
            await self._take_place(None if resumption == Resumption() else resumption)
            await self.resend(commands)

    async def _take_place(self, resume: Resumption | None) -> None:
        """Go on at whichever worker has room; those that are there are waited for."""
        lease = replace(self._lease, id=uuid.uuid4().hex, resume=resume)
        place = await self._placer.place(lease, patience_s=self._placer.settings.session.move_timeout_s)
        self._place, self._lease, self._worker = place, lease, place.connection.worker

    def _leave_drained(self, connection: WorkerConnection, now: float) -> None:
        """Break the connection to a draining worker past its deadline; the reader then moves this session."""
        if connection.leave_at is not None and now >= connection.leave_at:
            self._leaving = True
            connection.abort()

    async def _move(self, why: CarillonError, journal: Journal) -> None:
        """Take the session to another worker. Raises SpeechFailed or WorkerLost when that is useless, or in vain."""
        self._count(why, journal)
        log.warning("session moves", extra={"session": self._lease.id, "worker": self._worker.id, "code": why.code})
        await self._give_up_place(wait=False)
        self._placer.avoid(self._worker)
        async with self._sending:
            resumption, commands = journal.move()
            try:
                await self._take_place(resumption)
            except LOST as error:
                raise WorkerLost(f"{why.message}; no other worker took the session: {error.message}") from error
            self.moves += 1
            await self.resend(commands)

    async def resend(self, commands: Iterable[Command]) -> None:
        """Send what the journal has noted already; where the worker was left, the move does so."""
        if self._place is None:
            return
        connection = self._place.connection
        try:
            for command in commands:
                await connection.send(command)
        except DeadlineExceeded:
            connection.abort()  # its reader then finds it lost

    def _count(self, why: CarillonError, journal: Journal) -> None:
        leaving, self._leaving = self._leaving, False
        if leaving or _owed_nothing(journal):
            return
        self._moves_in_chunk += 1
        if self._moves_in_chunk > MAX_MOVES_PER_CHUNK:
            raise SpeechFailed(
                f"{self._moves_in_chunk} workers in a row were lost over the same text (the last: {why.message}); "
                "change it before you send it again"
            )

    async def leave(self) -> None:
        """Give up the present place, or the search for one, whatever is under way."""
        if self._moving is not None:
            self._moving.cancel()
            await asyncio.gather(self._moving, return_exceptions=True)
        await self._give_up_place()

    async def _give_up_place(self, *, wait: bool = True) -> None:
        place, self._place = self._place, None
        if place is not None:
            await self._placer.vacate(place, wait=wait)


def _owed_nothing(journal: Journal) -> bool:
    """Whether a session is between two texts: its worker has nothing to speak, to answer or to end."""
    owed = journal.awaits_speech or journal.awaits_flush or journal.ended or journal.cancels
    return journal.between_chunks and not owed
