"""A client of `WS /v1/sessions` that keeps all it receives, and faults what no listener should receive.

It speaks the protocol itself, message by message: what it asserts of a session is what any client can rely on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from app.speech.protocol import (
    SERVER_MESSAGES,
    AudioFrame,
    Cancelled,
    Done,
    Eos,
    Error,
    GoAway,
    Message,
    Pace,
    Ready,
    Resume,
    Resumed,
    Segment,
    Start,
    Text,
    Waiting,
    parse,
)
from tests.support.deadlines import LONG_HANG_S

Samples = NDArray[np.int16]

BYTES_PER_SAMPLE = 2


@dataclass
class Received:
    """All that came of one session, in order. Frames that do not follow on each other are a fault."""

    ready: Ready | None = None
    resumed: Resumed | None = None
    segments: list[Segment] = field(default_factory=list)
    errors: list[Error] = field(default_factory=list)
    cancelled: list[Cancelled] = field(default_factory=list)
    done: Done | None = None
    closed: bool = False
    """The socket has ended."""
    frames: list[AudioFrame] = field(default_factory=list)
    end_sample: int = 0
    """Behind the last sample that came."""
    next_sequence: int = 0

    @property
    def audio(self) -> Samples:
        return np.frombuffer(b"".join(frame.audio for frame in self.frames), dtype="<i2")

    @property
    def text(self) -> str:
        return " ".join(segment.text for segment in self.segments)

    def go_back(self, sample: int) -> None:
        """Forget what came from `sample` on, as a client must when it resumes; frames are then numbered again."""
        assert sample <= self.end_sample, f"{self.end_sample} samples came; those up to {sample} are missing"
        self.next_sequence, self.end_sample = 0, sample
        self.segments = [segment for segment in self.segments if segment.end_sample <= sample]
        self.frames = [frame for frame in self.frames if frame.sample_offset < sample]
        if self.frames and (excess := _end_of(self.frames[-1]) - sample) > 0:
            last = self.frames[-1]
            self.frames[-1] = replace(last, audio=last.audio[: -excess * BYTES_PER_SAMPLE])

    def last_turn(self) -> Received:
        """Only what came after the last cancel, counted from its own beginning."""
        generation = len(self.cancelled)
        frames = [frame for frame in self.frames if frame.generation == generation]
        segments = [segment for segment in self.segments if segment.generation == generation]
        begins = frames[0].sample_offset
        return replace(
            self,
            segments=[
                segment.model_copy(
                    update={
                        "generation": 0,
                        "start_sample": segment.start_sample - begins,
                        "end_sample": segment.end_sample - begins,
                    }
                )
                for segment in segments
            ],
            frames=frames,
            end_sample=self.end_sample - begins,
            done=self.done and self.done.model_copy(update={"samples": self.done.samples - begins}),
        )

    def take(self, frame: AudioFrame) -> None:
        """Raises AssertionError for a frame that repeats or leaves out a number or a sample, or is of another turn."""
        assert frame.sequence == self.next_sequence, f"frame {frame.sequence} came in place of {self.next_sequence}"
        assert frame.generation == len(self.cancelled), f"a frame of turn {frame.generation} in {len(self.cancelled)}"
        turn_begins = not self.frames or self.frames[-1].generation != frame.generation
        if self.cancelled and turn_begins:
            assert frame.sample_offset >= self.end_sample, "a cancelled turn is said again"
        else:
            assert frame.sample_offset == self.end_sample, f"{frame.sample_offset} came after {self.end_sample}"
        self.end_sample, self.next_sequence = _end_of(frame), frame.sequence + 1
        self.frames.append(frame)


def _end_of(frame: AudioFrame) -> int:
    return frame.sample_offset + len(frame.audio) // BYTES_PER_SAMPLE


class Listener:
    """One session on a socket of its own. `received` grows while it is spoken; `until` waits for something in it."""

    def __init__(self, socket: ClientConnection, session: str, received: Received | None = None) -> None:
        """`received` is what came of the session on an earlier connection."""
        self.session = session
        self.received = received or Received()
        self._socket = socket
        self._changed = asyncio.Condition()
        self._fault: Exception | None = None

    async def say(self, message: Message) -> None:
        await self._socket.send(message.model_dump_json())

    async def write(self, text: str | Sequence[str], *, ends: bool = True) -> None:
        """Send all of a text, in one piece or in these, and unless the session goes on, that it is all."""
        for piece in [text] if isinstance(text, str) else text:
            await self.say(Text(session=self.session, text=piece))
        if ends:
            await self.say(Eos(session=self.session))

    async def until(self, holds: Callable[[Received], bool]) -> Received:
        """What has been received once `holds`. Raises AssertionError for an error, or an end that leaves it unheard."""
        received = self.received
        await self._wait(
            lambda: holds(received) or bool(received.errors) or received.done is not None or received.closed
        )
        assert not self.received.errors, self.received.errors
        assert holds(self.received), f"it ended after {self.received.end_sample} samples; done: {self.received.done}"
        return self.received

    async def ready(self) -> Ready:
        received = await self.until(lambda received: received.ready is not None)
        assert received.ready
        return received.ready

    async def refused(self) -> Error | None:
        """Whether the session could not begin, and why."""
        await self._wait(lambda: bool(self.received.ready or self.received.errors or self.received.closed))
        return next(iter(self.received.errors), None)

    async def resumed(self) -> Resumed:
        """The answer to `resume`; what is to come again is then forgotten."""
        received = await self.until(lambda received: received.resumed is not None)
        assert received.resumed
        return received.resumed

    async def closed(self) -> Received:
        """What has been received once the connection is gone."""
        await self._wait(lambda: self.received.closed)
        return self.received

    async def spoken(self, samples: int) -> Received:
        """What has been received once there are so many samples."""
        return await self.until(lambda received: received.end_sample >= samples)

    async def done(self) -> Received:
        return await self.until(lambda received: received.done is not None)

    async def receive(self) -> None:
        """Take in messages until the socket ends."""
        try:
            async for raw in self._socket:
                self._take(raw)
                await self._notify()
        except ConnectionClosed:
            pass
        except Exception as fault:
            self._fault = fault
        finally:
            self.received.closed = True
            await self._notify()

    async def _wait(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(LONG_HANG_S), self._changed:
            await self._changed.wait_for(lambda: holds() or self._fault is not None)
        if self._fault is not None:
            raise self._fault

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _take(self, raw: str | bytes) -> None:
        received = self.received
        if isinstance(raw, bytes):
            received.take(AudioFrame.unpack(raw))
            return
        match parse(SERVER_MESSAGES, raw):
            case Ready() as ready:
                received.ready = ready
            case Resumed() as resumed:
                received.resumed = resumed
                received.go_back(resumed.sample_offset)
            case Segment() as segment:
                received.segments.append(segment)
            case Error() as error:
                received.errors.append(error)
            case Cancelled() as cancelled:
                received.cancelled.append(cancelled)
            case Done() as done:
                received.done = done
            case GoAway() | Waiting():
                pass
            case other:
                raise AssertionError(f"{type(other).__name__} was not expected")


@asynccontextmanager
async def listening(
    address: str, headers: Mapping[str, str], *, voice: str, pace: Pace, resumable: bool = False
) -> AsyncIterator[Listener]:
    """A session that has begun; leaving the context leaves it."""
    async with _connected(address, headers) as socket, _receiving(Listener(socket, "listened")) as listener:
        await listener.say(Start(session=listener.session, voice=voice, pace=pace, resumable=resumable))
        yield listener


@asynccontextmanager
async def resuming(
    address: str, headers: Mapping[str, str], received: Received, *, received_samples: int
) -> AsyncIterator[Listener]:
    """The session of which `received` came before its connection broke, taken up on another."""
    assert received.ready
    assert received.ready.resume_token
    token = received.ready.resume_token
    received = replace(received, ready=None, resumed=None, closed=False)
    async with _connected(address, headers) as socket, _receiving(Listener(socket, "resumed", received)) as listener:
        await listener.say(Resume(session=listener.session, token=token, received_samples=received_samples))
        yield listener


def _connected(address: str, headers: Mapping[str, str]) -> connect:
    url = f"{address.replace('http', 'ws')}/v1/sessions"
    return connect(url, additional_headers=headers, max_size=None, proxy=None)


@asynccontextmanager
async def _receiving(listener: Listener) -> AsyncIterator[Listener]:
    receiving = asyncio.create_task(listener.receive())
    try:
        yield listener
    finally:
        receiving.cancel()
        await asyncio.gather(receiving, return_exceptions=True)
