"""Sessions of the load generator, many on a socket: what they send, and what is counted of what comes.

Messages are read by their first bytes and audio by its header, so that the client costs less than the front door. It
does not know when sessions begin, nor what the figures are for.
"""

from __future__ import annotations

import asyncio
import json
import struct
import time
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from app.bench.figures import Target
from app.errors import Overloaded, WorkerLost
from app.speech.protocol import AudioFrame, Eos, Message, Text

STAMP = struct.Struct("<q")
"""At the head of each frame of a replaying worker: CLOCK_MONOTONIC in ns when it was sent."""

BYTES_PER_SAMPLE = BYTES_PER_CODE = 2

READY, SEGMENT, DONE, ERROR = (f'{{"type":"{type}"'.encode() for type in ("ready", "segment", "done", "error"))
"""How messages begin; most need no more than that."""


@dataclass(slots=True)
class Tally:
    """What happens while one thing is measured."""

    latency_ns: array[int] = field(default_factory=lambda: array("q"))
    direct_ns: array[int] = field(default_factory=lambda: array("q"))
    start_ns: array[int] = field(default_factory=lambda: array("q"))
    messages: int = 0
    texts: int = 0
    begun: int = 0
    done: int = 0
    refused: int = 0
    errors: Counter[str] = field(default_factory=Counter)


@dataclass
class Meter:
    """Sessions on a target: those that are open, and a tally of events."""

    target: Target
    tally: Tally = field(default_factory=Tally)
    open: set[Caller] = field(default_factory=set)


class Caller:
    """One session, from its first message to `done` or its error."""

    def __init__(self, meter: Meter, line: Line, id: str, text: Iterator[tuple[float, str]]) -> None:
        self.id = id
        self.samples = 0
        self._meter = meter
        self._line = line
        self._text = text
        self._loop = asyncio.get_running_loop()
        self._began_at_ns = time.monotonic_ns()
        self._began_at_s = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def ready(self) -> None:
        if not self._line.direct:
            self._meter.tally.start_ns.append(time.monotonic_ns() - self._began_at_ns)
        self._began_at_s = self._loop.time()
        self._write()

    def _write(self) -> None:
        """Wait for the next piece's time, send it, and so on."""
        due_s, piece = next(self._text, (0.0, None))
        self._timer = None if piece is None else self._loop.call_at(self._began_at_s + due_s, self._send, piece)

    def _send(self, piece: str) -> None:
        self._line.send(Text(session=self.id, text=piece) if piece else Eos(session=self.id))
        self._meter.tally.texts += not self._line.direct
        self._write()

    def receive(self, offset: int, audio: memoryview, now_ns: int) -> None:
        self.samples += len(audio) // BYTES_PER_SAMPLE
        tally, frame = self._meter.tally, self._meter.target.samples_per_frame
        tally.messages += not self._line.direct
        at = -offset % frame * BYTES_PER_SAMPLE
        if self._meter.target.stamped and at + STAMP.size <= len(audio):
            times = tally.direct_ns if self._line.direct else tally.latency_ns
            times.append(now_ns - STAMP.unpack_from(audio, at)[0])

    def finish(self, samples: int) -> None:
        if samples == self.samples:
            self._meter.tally.done += not self._line.direct
        else:
            self._meter.tally.errors["samples_lost"] += 1
        self.stop()

    def fail(self, code: str) -> None:
        if code == Overloaded.code:
            self._meter.tally.refused += 1
        else:
            self._meter.tally.errors[code] += 1
        self.stop()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._meter.open.discard(self)


class Line(WSListener):
    """One socket and the sessions on it: a client's with the front door, or a `direct` one with a worker."""

    def __init__(self, *, direct: bool = False) -> None:
        self.direct = direct
        self.callers: dict[str, Caller] = {}
        self._channels: dict[int, Caller] = {}
        self._socket: WSTransport | None = None

    @classmethod
    async def connect(cls, url: str, headers: Mapping[str, str], *, direct: bool = False) -> Line:
        """Raises OSError, WSError or TimeoutError."""
        line = cls(direct=direct)
        await ws_connect(lambda: line, url, extra_headers=headers)
        if line._socket is None:
            raise ConnectionResetError(f"{url} ended the connection within its handshake")
        return line

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._socket = transport

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        for caller in list(self.callers.values()):
            caller.fail(WorkerLost.code)
        self.callers.clear()

    def begin(self, caller: Caller, message: Message) -> None:
        self.callers[caller.id] = caller
        self.send(message)

    def send(self, message: Message) -> None:
        if self._socket is not None:
            self._socket.send(WSMsgType.TEXT, message.model_dump_json().encode())

    def close(self) -> None:
        for caller in self.callers.values():
            caller.stop()
        self.callers.clear()
        if self._socket is not None:
            self._socket.send_close()
            self._socket.disconnect()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type is WSMsgType.BINARY:
            now_ns = time.monotonic_ns()
            self._receive(frame.get_payload_as_memoryview(), now_ns)
        elif frame.msg_type is WSMsgType.TEXT:
            self._read(frame.get_payload_as_bytes())
        elif frame.msg_type is WSMsgType.CLOSE:
            transport.send_close()
            transport.disconnect()

    def _receive(self, packed: memoryview, now_ns: int) -> None:
        """The header by hand, the audio as a view: an AudioFrame would copy it."""
        _, channel, _, _, offset = AudioFrame.HEADER.unpack_from(packed)
        start = AudioFrame.HEADER.size
        if packed[0] == AudioFrame.CODED_KIND:
            *_, codes = AudioFrame.CODED_HEADER.unpack_from(packed)
            start = AudioFrame.CODED_HEADER.size + BYTES_PER_CODE * codes
        if caller := self._channels.get(channel):
            caller.receive(offset, packed[start:], now_ns)

    def _read(self, raw: bytes) -> None:
        if raw.startswith(SEGMENT):
            return
        message = json.loads(raw)
        caller = self.callers.get(message.get("session"))
        if caller is None:
            return
        if raw.startswith(READY):
            self._channels[message["channel"]] = caller
            caller.ready()
        elif raw.startswith(DONE):
            del self.callers[caller.id]
            caller.finish(message["samples"])
        elif raw.startswith(ERROR):
            if message["closed"]:
                del self.callers[caller.id]
            caller.fail(message["code"])
