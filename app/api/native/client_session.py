"""One session of a client: from its `start` to `done`, or to the error that closes it.

It joins the two halves: commands go to the worker, events come back through the session's queue. It does not know the
socket, nor the other sessions on it; when a session has been idle for too long, the worker says.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable

from app.api.command_queue import CommandQueue
from app.api.metrics import SessionCount
from app.api.native.send_queue import SendQueue
from app.api.segment_timing import SegmentTimer, Words
from app.api.services import Services
from app.api.stream_encoder import StreamEncoder
from app.errors import (
    CarillonError,
    InvalidRequest,
    SessionResumed,
    SlowReader,
    UnknownVoice,
)
from app.realtime.journal_store import Beginning, Keep
from app.realtime.session import RoutedSession, Used
from app.realtime.worker_client import Command, Event
from app.speech.protocol import (
    AudioFrame,
    Cancel,
    Cancelled,
    Credit,
    Done,
    Eos,
    Error,
    Flush,
    Resume,
    Resumed,
    Segment,
    Start,
    Text,
    Turn,
    Word,
)
from app.speech.text.options import TextOptions
from app.speech.voices import Voice

EDGE = "sessions"

log = logging.getLogger(__name__)


class ClientSession:
    """What the client sees as one session."""

    def __init__(
        self, start: Start | Resume, services: Services, send_queue: SendQueue, channel: int, *, key_id: str = ""
    ) -> None:
        self.id = start.session
        self.over = False
        """Its end was reported to the client; the connection to the worker may still be open."""
        self._count = SessionCount()
        self._request = start
        self._key_id = key_id
        self._keep: Keep | None = None
        """Of a resumable session."""
        self._task: asyncio.Task[None] | None = None
        self._lost = False
        """It was taken up on another connection."""
        self._services = services
        self._send_queue = send_queue
        self._channel = channel
        self._limits = services.settings.session
        self._text_at: float | None = None
        self._turn_ended_at: float | None = None
        """Of the turn that is answered, by the client; on this clock."""
        self._turn_unfit = False
        self._encoder: StreamEncoder | None = None
        self._commands = CommandQueue(max_pending_chars=self._limits.max_pending_chars)
        self._accounted = False
        """Its ledger is entered, here or where it was before."""
        self._done: Callable[[], Done] | None = None
        """Set when the worker is done, and only what the queue holds is still to be heard."""
        self._cancels_due: deque[Cancel] = deque()
        """Cancels the worker has not answered. Until then, what it says belongs to an older generation."""
        self._generation = 0
        self._upstream: RoutedSession | None = None
        self._speed = 1.0
        """Samples of the worker's for one that is delivered: what clients count and are sent."""
        self._timer: SegmentTimer | None = None
        """Of a session that asked for `timestamps`; what is said of its audio goes through it."""
        self._timing: asyncio.Task[None] | None = None
        self._note_turn(start.turn if isinstance(start, Start) else None)

    @property
    def resumable(self) -> bool:
        """Whether it can go on on another connection."""
        return self._keep is not None

    def obey(self, command: Command | Credit) -> None:
        """Take a client's command, without waiting. Raises TextTooLong, TextAfterEnd or InvalidRequest if it cannot."""
        if isinstance(self._request, Resume) and self._upstream is None and not isinstance(command, Credit):
            raise InvalidRequest("await `resumed`: it says what has arrived already, and must not be sent again")
        match command:
            case Credit():
                self._send_queue.grant(command.samples)
            case Cancel():
                self._cancel(command)
            case Text():
                self._commands.put(command)
                self._note_turn(command.turn)
                self._text_at = self._text_at or asyncio.get_running_loop().time()
            case Flush() | Eos():
                self._commands.put(command)

    def _note_turn(self, turn: Turn | None) -> None:
        """The first that fits counts."""
        if turn is None or self._turn_ended_at is not None:
            return
        age_s = turn.age_s(time.time())
        self._turn_unfit = age_s is None
        if age_s is not None:
            self._turn_ended_at = asyncio.get_running_loop().time() - age_s

    def _cancel(self, command: Cancel) -> None:
        """Drop at once what has not been sent, here and on its way; then tell the worker how much was played."""
        self._send_queue.drop()
        if self._timer:
            self._timer.forget()
        played = self._send_queue.sent_until if command.played_samples is None else self._spoken(command.played_samples)
        command = command.model_copy(update={"played_samples": played})
        if self._done is not None:
            assert self._upstream
            self._answer_cancel(command)
            self._upstream.journal.sent(command)  # for the client that resumes it
            self._send_queue.post(self._done)
            return
        self._commands.cancel(command)
        self._cancels_due.append(command)

    def _answer_cancel(self, command: Cancel) -> None:
        """The worker was done before it received the cancel, so it is answered here."""
        heard = command.played_samples or 0
        self._generation += 1
        words = self._upstream.spoken_text(heard) if self._upstream else ""
        samples = self._delivered(heard)
        self._send_queue.post(
            Cancelled(session=self.id, generation=self._generation, spoken_text=words, samples=samples)
        )

    async def run(self) -> None:
        """Speak until `done`. An error of ours is sent to the client and ends the session, and nothing else.

        A resumable session waits in its journal for another connection, also when it is done: `done` may not arrive.
        """
        self._task = asyncio.current_task()
        try:
            with self._services.metrics.session(EDGE) as self._count:
                await self._speak()
                await self._send_queue.drained()
            self._let_go()
        except asyncio.CancelledError:
            self._let_go()
            if not self._taken_up():
                raise
            await self._give_up(SessionResumed("the session goes on on the connection that has resumed it"))
        except CarillonError as error:
            await self._give_up(error)
        except Exception:
            log.exception("session failed", extra={"session": self.id})
            await self._give_up(CarillonError("something failed here; the server's log has the details"))
        finally:
            self._done = None  # it holds this session: apart, both are freed at once, and leave the collector nothing
            self._keep = None
            if self._encoder:
                self._encoder.close()

    async def _give_up(self, error: CarillonError) -> None:
        log.info("session ended by an error", extra={"session": self.id, "code": error.code})
        self.over = True
        if error.retryable or isinstance(error, SlowReader):
            self._let_go()
        elif self._keep:
            self._services.journals.end(self._keep)
        self._send_queue.drop()
        self._send_queue.post(Error.of(error, session=self.id, closed=True))
        await self._send_queue.drained()

    def _let_go(self) -> None:
        """Release the session to the connection that resumes it."""
        if self._keep:
            self._services.journals.let_go(self._keep, over=self._accounted)

    def _lose(self) -> None:
        """Another connection has the session now."""
        assert self._task
        self._lost = True
        self._task.cancel()

    def _taken_up(self) -> bool:
        """Whether another connection is all that this session was cancelled for, and not also that its own broke."""
        assert self._task
        return self._lost and self._task.uncancel() == 0

    async def _speak(self) -> None:
        if self._key_id:
            await self._services.keys.check(self._key_id)
        if isinstance(self._request, Resume):
            await self._go_on(self._request)
            return
        start, limits = self._request, self._limits
        self._speed = start.speed
        voice = await self._services.resolver.find(start.voice, start.model)
        keep_s = limits.resume_window_s if start.resumable else 0
        used = Used()
        async with self._services.session_router.open(
            voice,
            pace=start.pace,
            temperature=start.temperature,
            keep_s=keep_s,
            text=self._text_options(start, voice),
            used=used,
        ) as upstream:
            if start.resumable:
                self._keep = self._services.journals.keep(
                    self._services.journals.new_token(),
                    self._key_id,
                    Beginning(start=start, voice=voice, usage_id=used.id),
                    upstream.journal,
                    sent=lambda: self._send_queue.sent_until,
                    lost=self._lose,
                )
            self._open(upstream, start, voice)
            await self._converse(upstream)

    async def _go_on(self, resume: Resume) -> None:
        """Take a session up that began on another connection. Raises UnknownSession, or DeadlineExceeded."""
        taken = await self._services.journals.take(resume.token, self._key_id)
        start, voice, journal = taken.beginning.start, taken.beginning.voice, taken.journal
        self._send_queue.sent_until, self._accounted, self._speed = taken.sent, taken.beginning.over, start.speed
        self._keep = self._services.journals.keep(
            resume.token,
            self._key_id,
            taken.beginning,
            journal,
            sent=lambda: self._send_queue.sent_until,
            lost=self._lose,
            owner=taken.owner,
        )
        if not await self._services.resolver.still_has(voice):
            raise UnknownVoice(f"the voice {start.voice!r} has been deleted", param="voice")
        from_sample = taken.sent if resume.received_samples is None else self._spoken(resume.received_samples)
        async with self._services.session_router.open(
            voice,
            pace=start.pace,
            temperature=start.temperature,
            journal=journal,
            from_sample=from_sample,
            text=self._text_options(start, voice),
            used=Used(taken.beginning.usage_id, journal.all_chars, journal.all_samples / journal.sample_rate_hz),
        ) as upstream:
            self._send_queue.sent_until = journal.samples
            self._commands.ended, self._generation = journal.ended, journal.generation
            self._cancels_due += journal.cancels
            self._open(upstream, start, voice)
            log.info("session resumed", extra={"session": self.id, "samples_again": from_sample - journal.samples})
            self._send_queue.post(
                Resumed(
                    session=self.id,
                    generation=journal.generation + len(journal.cancels),
                    sample_offset=self._delivered(journal.samples),
                    text_chars=journal.text_chars,
                    ended=journal.ended,
                )
            )
            await self._converse(upstream)

    def _text_options(self, start: Start, voice: Voice) -> TextOptions:
        return start.text_options(language=voice.language, operator=self._limits.text_options)

    def _open(self, upstream: RoutedSession, start: Start, voice: Voice) -> None:
        """Open the send queue, and send `ready`."""
        self._upstream = upstream
        rate_hz = upstream.ready.sample_rate_hz
        if start.timestamps:
            self._timer = SegmentTimer(
                self._services.aligner,
                sample_rate_hz=rate_hz,
                options=self._text_options(start, voice),
                tags=self._services.tags_of(voice),
                speed=start.speed,
            )
        self._encoder = StreamEncoder(start.format, sample_rate_hz=rate_hz, speed=start.speed)
        self._send_queue.open(self._encoder, room_samples=round(self._limits.buffer_s * rate_hz))
        told = {"session": self.id, "channel": self._channel, "format": start.format, "voice": voice.id}
        token = self._keep.token if self._keep else None
        self._send_queue.post(upstream.ready.model_copy(update={**told, "resume_token": token}))

    async def _converse(self, upstream: RoutedSession) -> None:
        """Relay commands to the worker and events back, until it is done."""
        try:
            async with asyncio.TaskGroup() as group:
                carrying = group.create_task(self._commands.carry(upstream))
                if self._timer:
                    self._timing = group.create_task(self._timer.run(self._report))
                async for event in upstream:
                    await self._deliver(event)
                carrying.cancel()
        except ExceptionGroup as group_error:
            raise group_error.exceptions[0] from None

    async def _deliver(self, event: Event) -> None:
        if isinstance(event, AudioFrame):
            if not self._cancels_due:
                self._generation = event.generation
                if self._timer:
                    self._timer.heard(event)
                await self._send_queue.put(event)
            return
        match event:
            case Done():
                if self._timer and self._timing:
                    self._timer.close()
                    await self._timing
                self._finish(event)
                return
            case Cancelled():
                self._cancels_due.popleft()
                self._generation = event.generation
            case _:
                pass
        if self._cancels_due:
            return
        if self._timer is None or isinstance(event, Cancelled):
            await self._put_message(event)
        else:
            if isinstance(event, Segment):
                self._timer.ended(event)
            if not isinstance(event, Segment) or not event.text:
                self._timer.then(event)

    async def _report(self, timed: Words | Event) -> None:
        """What the timer is done with; a cancel may have come since it began."""
        if not isinstance(timed, Words):
            await self._put_message(timed)
        elif not self._cancels_due and timed.segment.generation >= self._generation:
            rate_hz = self._upstream.ready.sample_rate_hz if self._upstream else 0
            words = tuple(
                Word(text=it.text, start_sample=round(it.start_s * rate_hz), end_sample=round(it.end_s * rate_hz))
                for it in timed.written
            )
            told = {"words": words, "approximate": timed.approximate}
            await self._put_message(timed.segment.model_copy(update=told))

    async def _put_message(self, event: Event) -> None:
        assert not isinstance(event, AudioFrame)
        counted = {"samples", "start_sample", "end_sample"} & event.model_fields_set
        counts = {name: self._delivered(getattr(event, name)) for name in counted}
        await self._send_queue.put_message(event.model_copy(update={"session": self.id, **counts}))

    def _delivered(self, samples: int) -> int:
        """The worker's count as the client has it."""
        return round(samples / self._speed)

    def _spoken(self, samples: int) -> int:
        """The client's count as the worker has it."""
        return round(samples * self._speed)

    def _finish(self, done: Done) -> None:
        """The worker is done; the first audio may not have been sent yet, and so the ledger is completed later."""

        def complete() -> Done:
            moments = self._turn_ended_at, self._text_at, self._send_queue.first_audio_at
            ledger = done.ledger.at_the_edge(*moments)
            if not self._accounted:
                self._services.metrics.account(EDGE, ledger)
            self._accounted = True
            self._count.done()
            self.over = True
            samples = max(self._delivered(done.samples), self._send_queue.delivered_until)
            ledger = ledger.model_copy(update={"samples": samples})
            ignored = (*done.ignored, *(("turn.ended_at",) if self._turn_unfit else ()))
            return done.model_copy(
                update={"session": self.id, "samples": samples, "ledger": ledger, "ignored": ignored}
            )

        self._done = complete
        if not self._cancels_due:
            self._send_queue.finish()
        for cancel in self._cancels_due:
            self._answer_cancel(cancel)
        self._send_queue.post(complete)
