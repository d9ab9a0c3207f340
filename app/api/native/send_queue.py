"""The send side of a socket: one queue a session, one writer for all of them.

The writer takes one item from each queue in turn, so a session with much to say, or without credit, never delays
another. A queue holds a bounded amount of audio; its producer waits. Audio is encoded when it is taken: credit can then
cut it at any sample, and a cancel drops what was not heard without a trace in the encoder.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from app.api.stream_encoder import StreamEncoder
from app.errors import SlowReader
from app.platform.deadline import Deadline
from app.speech.protocol import AudioFrame, Cancelled, Message, Ready, Resumed

BYTES_PER_SAMPLE = 2

MAX_SAMPLES_PER_ITEM = 4_800
"""200 ms at 24 kHz: a session's turn at the writer is short."""

MAX_ITEMS = 1_000
"""A queue that holds so many things is full, however little audio they are."""

ANSWERS = Ready, Resumed, Cancelled
"""What a client waits for, whatever it has cancelled meanwhile."""

Deferred = Callable[[], Message]


@dataclass(slots=True)
class _Audio:
    generation: int
    offset: int
    pcm16: bytes

    @property
    def samples(self) -> int:
        return len(self.pcm16) // BYTES_PER_SAMPLE

    def cut(self, samples: int) -> _Audio:
        """Take the first `samples` off."""
        size = samples * BYTES_PER_SAMPLE
        head = _Audio(self.generation, self.offset, self.pcm16[:size])
        self.offset, self.pcm16 = self.offset + samples, self.pcm16[size:]
        return head


class _Ending:
    """Stands behind the last audio: the encoder gives out what it held."""


class SendQueue:
    """What one session has to send, in order. `window_samples` None: credit without end."""

    def __init__(
        self,
        wake: Callable[[SendQueue], None],
        *,
        channel: int,
        window_samples: int | None,
        slow_reader_timeout_s: float,
    ) -> None:
        self._wake = wake
        self.channel = channel
        self._credit_samples = window_samples
        self._timeout_s = slow_reader_timeout_s
        self._encoder: StreamEncoder | None = None
        self._room_samples = 0
        self._skipped_samples = 0
        """Of what would have been delivered, before the encoder's first sample and where audio was dropped."""
        self._dropped = False
        self._items: deque[_Audio | _Ending | Message | Deferred] = deque()
        self._held_samples = 0
        self._drops = 0
        self._sequence = 0
        self._generation = 0
        self._progress = asyncio.Event()
        self._failure: Exception | None = None
        self.sent_until = 0
        """The sample, counted as the worker counts, up to which audio has been sent."""
        self.first_audio_at: float | None = None
        """When the first audio was taken, on the event loop's clock."""

    def open(self, encoder: StreamEncoder, *, room_samples: int) -> None:
        """Say how audio is encoded and how much may be held; before this there is none."""
        self._encoder = encoder
        self._skipped_samples = encoder.delivered(self.sent_until)
        if self._credit_samples is not None:
            self._credit_samples = encoder.spoken(self._credit_samples)
        self._room_samples = room_samples

    def post(self, message: Message | Deferred) -> None:
        """Send a message behind what is already here; a function is called when its turn comes."""
        self._items.append(message)
        self._wake(self)

    async def put(self, frame: AudioFrame) -> None:
        """Send audio; waits while the queue is full, and lets go of it if what was before it is dropped meanwhile.

        Raises SlowReader when nothing is taken for too long, or what broke when earlier audio was encoded.
        """
        drops = self._drops
        self._raise_failure()
        while self._held_samples >= self._room_samples or len(self._items) >= MAX_ITEMS:
            await self._moved()
        if self._drops != drops:
            return
        audio = _Audio(frame.generation, frame.sample_offset, frame.audio)
        self._held_samples += audio.samples
        self._items.append(audio)
        self._wake(self)

    async def put_message(self, message: Message) -> None:
        """Send a message as `put` sends audio, but for the answers: they are never let go of."""
        drops = self._drops
        while len(self._items) >= MAX_ITEMS:
            await self._moved()
        if self._drops == drops or isinstance(message, ANSWERS):
            self.post(message)

    def finish(self) -> None:
        """No more audio comes: send what the encoder still holds."""
        self._items.append(_Ending())
        self._wake(self)

    async def drained(self) -> None:
        """Wait until everything has been taken. Raises as `put` does."""
        while self._items:
            await self._moved()
        self._raise_failure()

    @property
    def delivered_until(self) -> int:
        """The sample up to which audio has been sent, counted as the client hears it."""
        return self._skipped_samples + (self._encoder.samples if self._encoder else 0)

    def grant(self, samples: int) -> None:
        """Credit for so much more audio, as the client hears it."""
        if self._credit_samples is not None:
            self._credit_samples += self._encoder.spoken(samples) if self._encoder else samples
            self._wake(self)

    def drop(self) -> None:
        """Forget everything that has not been sent, but for the answers."""
        self._drops += 1
        self._items = deque(item for item in self._items if isinstance(item, ANSWERS))
        self._held_samples = 0
        if self._encoder:
            self._encoder.skip()
            self._dropped = True
        self._progress.set()
        self._wake(self)

    def take(self) -> str | bytes | None:
        """The next thing to send, or None while there is nothing, or no credit for it.

        It never raises: the writer serves other sessions too. A failure is kept for the session that fills this queue.
        """
        while self._items:
            if isinstance(self._items[0], _Audio) and self._credit_samples == 0:
                return None
            try:
                taken = self._take_first(self._items[0])
            except Exception as failure:
                self.drop()
                self._failure = failure
                return None
            self._progress.set()
            if taken is not None:
                return taken
        return None

    def _take_first(self, item: _Audio | _Ending | Message | Deferred) -> str | bytes | None:
        return self._take_audio(item) if isinstance(item, _Audio) else self._take_other(self._items.popleft())

    def _take_audio(self, audio: _Audio) -> bytes | None:
        assert self._encoder is not None
        samples = min(audio.samples, MAX_SAMPLES_PER_ITEM)
        if self._credit_samples is not None:
            samples = min(samples, self._credit_samples)
            self._credit_samples -= samples
        if samples == audio.samples:
            head = audio
            self._items.popleft()
        else:
            head = audio.cut(samples)
        self._held_samples -= samples
        if self._dropped or head.offset != self.sent_until:
            self._skipped_samples = self._encoder.delivered(head.offset) - self._encoder.samples
            self._dropped = False
        self._generation, self.sent_until = head.generation, head.offset + samples
        offset = self.delivered_until
        return self._frame(offset, self._encoder.encode(head.pcm16))

    def _take_other(self, item: _Audio | _Ending | Message | Deferred) -> str | bytes | None:
        if isinstance(item, _Ending):
            assert self._encoder is not None
            offset = self.delivered_until
            return self._frame(offset, self._encoder.finish())
        assert not isinstance(item, _Audio)
        return (item if isinstance(item, Message) else item()).model_dump_json()

    def _frame(self, offset: int, encoded: bytes) -> bytes | None:
        if not encoded:
            return None
        frame = AudioFrame(self.channel, self._generation, self._sequence, offset, encoded)
        self._sequence += 1
        if self.first_audio_at is None:
            self.first_audio_at = asyncio.get_running_loop().time()
        return frame.pack()

    async def _moved(self) -> None:
        self._progress.clear()
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._progress.wait()
        except TimeoutError:
            raise SlowReader(f"no audio was taken for {self._timeout_s:g} s; read, or grant credit") from None
        self._raise_failure()

    def _raise_failure(self) -> None:
        """Once: its session then says in this queue that it is over."""
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure


class Outlet(Protocol):
    """A socket that takes messages without a turn of the event loop, while it is `clear`."""

    @property
    def clear(self) -> bool: ...

    def send_now(self, message: str | bytes) -> None: ...


class Writer:
    """Writes to a socket, each session's queue in turn.

    What comes while the `outlet` is clear goes out at once. The rest is sent by the one task that is in `run`, with
    `send`, which may wait; when it does so for too long, the client is given up.
    """

    def __init__(
        self,
        send: Callable[[str | bytes], Awaitable[None]],
        *,
        slow_reader_timeout_s: float,
        outlet: Outlet | None = None,
    ) -> None:
        self._send = send
        self._outlet = outlet
        self._sending = False
        """What comes now has to wait for what was taken before it."""
        self._timeout_s = slow_reader_timeout_s
        self._queues: dict[int, SendQueue] = {}
        self._waiting: dict[int, SendQueue] = {}
        """Queues that may have something to send, in the order of their turns."""
        self._work = asyncio.Event()

    def queue(self, channel: int, *, window_samples: int | None = None) -> SendQueue:
        """A new queue, served from now on. Channel 0 is the socket's own: it carries no audio."""
        queue = SendQueue(
            self._wake, channel=channel, window_samples=window_samples, slow_reader_timeout_s=self._timeout_s
        )
        self._queues[channel] = queue
        return queue

    def _wake(self, queue: SendQueue) -> None:
        if self._queues.get(queue.channel) is queue:
            self._waiting.setdefault(queue.channel, queue)
            self._send_now()
            if self._waiting:
                self._work.set()

    def _send_now(self) -> None:
        """One item of each queue in turn, until none has any or the outlet takes no more."""
        if self._outlet is None or self._sending:
            return
        self._sending = True
        try:
            while self._outlet.clear and (item := self._next()) is not None:
                self._outlet.send_now(item)
        finally:
            self._sending = False

    def close(self, channel: int) -> None:
        self._queues.pop(channel, None)
        self._waiting.pop(channel, None)

    async def run(self) -> None:
        """Send what could not be sent at once, until cancelled. Raises SlowReader."""
        deadline = Deadline()
        try:
            while True:
                await self._work.wait()
                self._work.clear()
                self._send_now()
                while (item := self._next()) is not None:
                    self._sending = True
                    with deadline.within(self._timeout_s):
                        await self._send(item)
                    self._sending = False
                    self._send_now()
        except TimeoutError:
            raise SlowReader(f"the client read nothing for {self._timeout_s:g} s") from None
        finally:
            deadline.close()

    def _next(self) -> str | bytes | None:
        while self._waiting:
            channel, queue = next(iter(self._waiting.items()))
            del self._waiting[channel]
            if (item := queue.take()) is not None:
                self._waiting[channel] = queue
                return item
        return None
