"""One session of a client: from its `start` to `done`, or to the error that closes it.

It joins the two halves: commands go to the worker, events come back through the session's box. It does not know the
socket, nor the other sessions on it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from app.api.deps import Door
from app.api.encoding import Outlet
from app.api.outbox import Outbox
from app.core.errors import CarillonError, DeadlineExceeded, InvalidRequest, TextAfterEnd, TextTooLong
from app.core.messages import (
    AudioFrame,
    Cancel,
    Cancelled,
    Credit,
    Done,
    Eos,
    Error,
    Flush,
    Segment,
    Start,
    Text,
)
from app.infra.upstream import Command, Event, UpstreamSession

EDGE = "sessions"
MAX_COMMANDS = 1_000
"""Commands that wait for a worker; their text is bounded by `max_pending_chars`."""

log = logging.getLogger(__name__)


class ClientSession:
    """What the client sees as one session."""

    def __init__(self, start: Start, door: Door, box: Outbox, channel: int) -> None:
        self.id = start.session
        self._start = start
        self._door = door
        self._box = box
        self._channel = channel
        self._limits = door.settings.session
        self._clock = asyncio.get_running_loop().time
        self._active_at = self._clock()
        self._text_at: float | None = None
        self._outlet: Outlet | None = None
        self._commands: asyncio.Queue[Command] = asyncio.Queue(MAX_COMMANDS)
        self._waiting_chars = 0
        self._ended = False
        self._spoken = False
        """The worker is done; only what the box holds is still to be heard."""
        self._done: Callable[[], Done] | None = None
        self._cancels_due = 0
        """Cancels the worker has not answered. Until then, what it says belongs to an older generation."""
        self._generation = 0
        self._segments: list[Segment] = []

    def obey(self, command: Command | Credit) -> None:
        """Take a client's command, without waiting. Raises TextTooLong, TextAfterEnd or InvalidRequest if it cannot."""
        self._active_at = self._clock()
        match command:
            case Credit():
                self._box.grant(command.samples)
            case Cancel():
                self._cancel(command)
            case Text():
                self._hear(command)
            case Flush() | Eos():
                if self._ended:
                    raise TextAfterEnd(f"{command.type} after eos: session {self.id!r} takes no more text")
                self._ended = isinstance(command, Eos)
                self._enqueue(command)

    def _hear(self, command: Text) -> None:
        if self._ended:
            raise TextAfterEnd(f"text after eos: session {self.id!r} takes no more; start another, or cancel first")
        most = self._limits.max_pending_chars
        if self._waiting_chars + len(command.text) > most:
            raise TextTooLong(
                f"{len(command.text)} characters with {self._waiting_chars} still waiting; at most {most} may be "
                "pending: send the rest when `segment` messages have come",
                param="text",
            )
        self._enqueue(command)
        self._text_at = self._text_at or self._active_at
        self._waiting_chars += len(command.text)

    def _enqueue(self, command: Command) -> None:
        try:
            self._commands.put_nowait(command)
        except asyncio.QueueFull:
            raise InvalidRequest(f"{MAX_COMMANDS} messages wait for this session's worker; slow down") from None

    def _cancel(self, command: Cancel) -> None:
        """Drop at once what has not been sent, here and on its way; then the worker is told what was heard."""
        self._box.drop()
        while not self._commands.empty():
            self._commands.get_nowait()
        self._waiting_chars = 0
        if self._spoken:
            self._answer_cancel(command)
            return
        self._ended = False
        self._cancels_due += 1
        played = self._box.sent_until if command.played_samples is None else command.played_samples
        self._enqueue(command.model_copy(update={"played_samples": played}))

    def _answer_cancel(self, command: Cancel) -> None:
        """The worker has ended, so the rest is ours to say."""
        heard = self._box.sent_until if command.played_samples is None else command.played_samples
        self._generation += 1
        words = " ".join(filter(None, (_heard(segment, heard) for segment in self._segments)))
        self._box.post(Cancelled(session=self.id, generation=self._generation, spoken_text=words, samples=heard))
        assert self._done is not None
        self._box.post(self._done)

    async def run(self) -> None:
        """Speak until `done`. An error of ours is told to the client and ends the session, and nothing else."""
        try:
            with self._door.metrics.session(EDGE):
                await self._speak()
                await self._box.drained()
        except CarillonError as error:
            await self._give_up(error)
        except Exception:
            log.exception("session failed", extra={"session": self.id})
            await self._give_up(CarillonError("something failed here; the server's log has the details"))
        finally:
            if self._outlet:
                self._outlet.close()

    async def _give_up(self, error: CarillonError) -> None:
        log.info("session ended by an error", extra={"session": self.id, "code": error.code})
        self._box.drop()
        self._box.post(Error.of(error, session=self.id, closed=True))
        await self._box.drained()

    async def _speak(self) -> None:
        start = self._start
        voice = await self._door.directory.find(start.voice, start.model)
        async with self._door.upstream.open(voice, pace=start.pace, temperature=start.temperature) as upstream:
            rate_hz = upstream.ready.sample_rate_hz
            self._outlet = Outlet(start.format, sample_rate_hz=rate_hz, speed=start.speed)
            self._box.open(self._outlet, room_samples=round(self._limits.buffer_s * rate_hz))
            self._box.post(
                upstream.ready.model_copy(
                    update={"session": self.id, "channel": self._channel, "format": start.format, "voice": voice.id}
                )
            )
            await self._converse(upstream)

    async def _converse(self, upstream: UpstreamSession) -> None:
        """Carry commands there and events back, until the worker is done."""
        try:
            async with asyncio.TaskGroup() as group:
                helpers = [group.create_task(self._carry(upstream)), group.create_task(self._watch_idleness())]
                async for event in upstream:
                    self._active_at = self._clock()
                    await self._deliver(event)
                for helper in helpers:
                    helper.cancel()
        except ExceptionGroup as group_error:
            raise group_error.exceptions[0] from None

    async def _carry(self, upstream: UpstreamSession) -> None:
        while True:
            command = await self._commands.get()
            if isinstance(command, Text):
                self._waiting_chars -= len(command.text)
            await upstream.send(command)

    async def _watch_idleness(self) -> None:
        timeout_s = self._limits.idle_timeout_s
        while (remaining_s := self._active_at + timeout_s - self._clock()) > 0:
            await asyncio.sleep(remaining_s)
        raise DeadlineExceeded(f"the session had neither text nor audio for {timeout_s:g} s; start another")

    async def _deliver(self, event: Event) -> None:
        if isinstance(event, Cancelled):
            self._cancels_due -= 1
        elif self._cancels_due:
            return
        match event:
            case AudioFrame():
                self._generation = event.generation
                await self._box.put(event)
            case Done():
                self._finish(event)
            case Segment():
                self._segments.append(event)
                self._box.post(event.model_copy(update={"session": self.id}))
            case Cancelled():
                self._generation = event.generation
                self._segments.clear()
                self._box.post(event.model_copy(update={"session": self.id}))
            case _:
                self._box.post(event.model_copy(update={"session": self.id}))

    def _finish(self, done: Done) -> None:
        """The worker has said its last; what is first heard, and so the ledger, may still be to come."""
        self._spoken = True

        def complete() -> Done:
            ledger = done.ledger
            if self._text_at is not None and self._box.first_audio_at is not None:
                first_audio_ms = round((self._box.first_audio_at - self._text_at) * 1000, 3)
                ledger = ledger.model_copy(update={"first_audio_ms": first_audio_ms})
            self._door.metrics.account(EDGE, ledger)
            return done.model_copy(update={"session": self.id, "ledger": ledger})

        self._done = complete
        self._box.finish()
        self._box.post(complete)


def _heard(segment: Segment, until: int) -> str:
    """The words of `segment` that are heard by the sample `until`, taking all words for equally long."""
    if until >= segment.end_sample:
        return segment.text
    words = segment.text.split()
    share = max(0, until - segment.start_sample) / max(1, segment.end_sample - segment.start_sample)
    return " ".join(words[: int(len(words) * share)])
