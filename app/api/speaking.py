"""One session of a socket that speaks another dialect: text goes in, encoded audio and the times of its words come out.

The dialects translate their messages to its calls, and what it delivers to their messages. Synthesis, splitting, moving
and limits are the fleet's: this joins a `RoutedSession` to an encoder and the aligner. To interrupt one, cancel its
task: its place at the worker is then free, and nothing more is delivered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import dataclass

from app.api.command_queue import CommandQueue
from app.api.manner import Manner
from app.api.metrics import SessionCount
from app.api.segment_timing import SegmentTimer, Words
from app.api.services import Services
from app.api.speech_response import SILENCE_S
from app.api.stream_encoder import StreamEncoder
from app.realtime.session import RoutedSession
from app.realtime.worker_client import Event
from app.speech.latency import Ledger
from app.speech.protocol import AudioFrame, Done, Eos, Error, Flush, Flushed, Segment, Text

NO_ID = "-"
"""A session between a front door and a worker is named by its lease."""


@dataclass(frozen=True, slots=True)
class Sound:
    """Encoded audio, in order."""

    audio: bytes


@dataclass(frozen=True, slots=True)
class FlushedAll:
    """What was said before a flush has been delivered; `number` counts the flushes from 1."""

    number: int


@dataclass(frozen=True, slots=True)
class Finished:
    """All has been delivered."""

    ledger: Ledger


Delivery = Sound | Words | FlushedAll | Finished


class Speaking:
    """A session from its first word on: it is opened by `run`, and takes text from the moment it is made."""

    def __init__(self, services: Services, manner: Manner) -> None:
        self._services = services
        self._manner = manner
        self._commands = CommandQueue(max_pending_chars=services.settings.session.max_pending_chars)
        self._flushes = 0
        self._asked_at: float | None = None
        self._first_audio_ms: float | None = None

    # What its client says. None of it waits.

    def say(self, text: str) -> None:
        """Speak more text, in pieces of any size. Raises TextTooLong, TextAfterEnd, InvalidRequest."""
        self._commands.put(Text(session=NO_ID, text=text))
        self._asked_at = self._asked_at or asyncio.get_running_loop().time()

    def flush(self) -> None:
        """Speak what there is, without waiting for the end of a sentence; answered by FlushedAll."""
        self._commands.put(Flush(session=NO_ID))

    def end(self) -> None:
        """No more text: speak the rest, then Finished."""
        self._commands.put(Eos(session=NO_ID))

    # What it says.

    async def run(self, deliver: Callable[[Delivery], Awaitable[None]]) -> None:
        """Speak, until Finished was delivered. One delivery is awaited before the next is made.

        Raises what the session ended with: Overloaded, WorkerLost, SessionIdle …
        """
        with self._services.metrics.session(self._manner.edge) as count:
            try:
                await self._speak(deliver, count)
            except ExceptionGroup as group:
                raise group.exceptions[0] from None

    async def _speak(self, deliver: Callable[[Delivery], Awaitable[None]], count: SessionCount) -> None:
        manner = self._manner
        async with manner.opened(self._services.session_router) as session:
            rate_hz = session.ready.sample_rate_hz
            encoder = manner.encoder(session)
            outlet = _Outlet(deliver, encoder)
            timer = self._timer(rate_hz) if manner.timed else None
            with closing(encoder):
                async with asyncio.TaskGroup() as group:
                    carrying = group.create_task(self._commands.carry(session))
                    reporting = group.create_task(timer.run(outlet.put)) if timer else None
                    ledger = await self._listen(session, outlet, timer)
                    carrying.cancel()
                    if timer and reporting:
                        timer.close()
                        await reporting
                if not ledger.samples:
                    await outlet.sound(bytes(2 * round(SILENCE_S * rate_hz)))
                await outlet.finish()
        ledger = ledger.model_copy(update={"first_audio_ms": self._first_audio_ms})
        self._services.metrics.account(manner.edge, ledger)
        count.done()
        await deliver(Finished(ledger))

    def _timer(self, sample_rate_hz: int) -> SegmentTimer:
        manner = self._manner
        return SegmentTimer(
            self._services.aligner,
            sample_rate_hz=sample_rate_hz,
            options=manner.options,
            tags=self._services.tags_of(manner.voice),
            speed=manner.speed,
        )

    async def _listen(self, session: RoutedSession, outlet: _Outlet, timer: SegmentTimer | None) -> Ledger:
        ledger = Ledger()
        async for event in session:
            match event:
                case AudioFrame():
                    if timer:
                        timer.heard(event)
                    await outlet.sound(event.audio)
                    self._note_first_audio()
                case Error():
                    raise event.rebuilt()
                case Done():
                    ledger = event.ledger
                case _:
                    await self._note(event, outlet, timer)
        return ledger

    async def _note(self, event: Event, outlet: _Outlet, timer: SegmentTimer | None) -> None:
        match event:
            case Segment() if timer:
                timer.ended(event)
            case Flushed():
                self._flushes += 1
                flushed = FlushedAll(self._flushes)
                if timer:
                    timer.then(flushed)
                else:
                    await outlet.put(flushed)
            case _:
                pass

    def _note_first_audio(self) -> None:
        if self._first_audio_ms is None and self._asked_at is not None:
            self._first_audio_ms = round((asyncio.get_running_loop().time() - self._asked_at) * 1000, 3)


class _Outlet:
    """Delivers one thing at a time, for the audio and for what is known of it later."""

    def __init__(self, deliver: Callable[[Delivery], Awaitable[None]], encoder: StreamEncoder) -> None:
        self._deliver = deliver
        self._encoder = encoder
        self._turn = asyncio.Lock()

    async def put(self, delivery: Delivery) -> None:
        async with self._turn:
            await self._deliver(delivery)

    async def sound(self, pcm16: bytes) -> None:
        if encoded := self._encoder.encode(pcm16):
            await self.put(Sound(encoded))

    async def finish(self) -> None:
        if rest := self._encoder.finish():
            await self.put(Sound(rest))
