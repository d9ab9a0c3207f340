"""The load generator of `carillon bench fleet`: a process of its own, told by a `Target` and a `Plan` on its input.

    python -m app.bench.load_generator  <  {"target": …, "plan": …}  >  Measured

Clients of `WS /v1/sessions`, many sessions on a socket. Sessions arrive as a Poisson process, whatever has become of
those before; their lengths are exponential; they speak without a pause, and their text comes as a language model
writes it. Beside them, in the same seconds, some sessions go straight to the workers: the way there and back without
the front door. It counts what comes and reads the time at the head of each frame, and does not listen.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import struct
import sys
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random

import psutil
import uvloop
from picows import WSError, WSFrame, WSListener, WSMsgType, WSTransport, ws_connect
from redis.asyncio import Redis

from app.bench.figures import Measured, Plan, Starts, Step, Target, arrivals, percentiles_ms
from app.bench.sessions import TEXTS, as_a_model_writes
from app.errors import Overloaded, WorkerLost
from app.speech.protocol import Assign, AudioFrame, Eos, Message, Start, Text

CHARS_PER_S = 14.0
SHORT_TEXT = "Yes."
EARLY_S = 1.0
"""How long before the end of a turn's audio the text of the next one comes."""

STAMP = struct.Struct("<q")
"""At the head of each frame of a replaying worker: CLOCK_MONOTONIC in ns when it was sent."""

BYTES_PER_SAMPLE = BYTES_PER_CODE = 2
HELD_INTERVAL_S = 0.1

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


class Caller:
    """One session, from its first message to `done` or its error."""

    def __init__(self, load: Load, line: Line, id: str, text: Iterator[tuple[float, str]]) -> None:
        self.id = id
        self.samples = 0
        self._load = load
        self._line = line
        self._text = text
        self._loop = asyncio.get_running_loop()
        self._asked_at_ns = time.monotonic_ns()
        self._began_at_s = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def ready(self) -> None:
        if not self._line.direct:
            self._load.tally.start_ns.append(time.monotonic_ns() - self._asked_at_ns)
        self._began_at_s = self._loop.time()
        self._write()

    def _write(self) -> None:
        """Wait for the next piece's time, send it, and so on."""
        due_s, piece = next(self._text, (0.0, None))
        self._timer = None if piece is None else self._loop.call_at(self._began_at_s + due_s, self._send, piece)

    def _send(self, piece: str) -> None:
        self._line.send(Text(session=self.id, text=piece) if piece else Eos(session=self.id))
        self._load.tally.texts += not self._line.direct
        self._write()

    def hear(self, offset: int, audio: memoryview, now_ns: int) -> None:
        self.samples += len(audio) // BYTES_PER_SAMPLE
        tally, frame = self._load.tally, self._load.target.samples_per_frame
        tally.messages += not self._line.direct
        at = -offset % frame * BYTES_PER_SAMPLE
        if self._load.target.stamped and at + STAMP.size <= len(audio):
            times = tally.direct_ns if self._line.direct else tally.latency_ns
            times.append(now_ns - STAMP.unpack_from(audio, at)[0])

    def finish(self, samples: int) -> None:
        if samples == self.samples:
            self._load.tally.done += not self._line.direct
        else:
            self._load.tally.errors["samples_lost"] += 1
        self.stop()

    def fail(self, code: str) -> None:
        if code == Overloaded.code:
            self._load.tally.refused += 1
        else:
            self._load.tally.errors[code] += 1
        self.stop()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._load.open.discard(self)


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
            self._hear(frame.get_payload_as_memoryview(), now_ns)
        elif frame.msg_type is WSMsgType.TEXT:
            self._read(frame.get_payload_as_bytes())
        elif frame.msg_type is WSMsgType.CLOSE:
            transport.send_close()
            transport.disconnect()

    def _hear(self, packed: memoryview, now_ns: int) -> None:
        """The header by hand, the audio as a view: an AudioFrame would copy it."""
        _, channel, _, _, offset = AudioFrame.HEADER.unpack_from(packed)
        start = AudioFrame.HEADER.size
        if packed[0] == AudioFrame.CODED_KIND:
            *_, codes = AudioFrame.CODED_HEADER.unpack_from(packed)
            start = AudioFrame.CODED_HEADER.size + BYTES_PER_CODE * codes
        if caller := self._channels.get(channel):
            caller.hear(offset, packed[start:], now_ns)

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


class Load:
    """Sessions on one target, and what they come to."""

    def __init__(self, target: Target, plan: Plan, progress: Callable[[str], None]) -> None:
        self.target = target
        self.tally = Tally()
        self.open: set[Caller] = set()
        self._plan = plan
        self._progress = progress
        self._random = Random(plan.seed)
        self._ids = itertools.count(1)
        self._lines: list[Line] = []
        self._direct: list[Line] = []
        self._door = psutil.Process(target.front_door_pid) if target.front_door_pid else None

    async def run(self) -> Measured:
        steps = [await self._step(count) for count in self._plan.sessions]
        self._hang_up()
        await asyncio.sleep(self._plan.drain_s)
        starts: list[Starts] = []
        for rate in self._plan.starts_per_s:
            starts.append(await self._starts(rate))
            if not starts[-1].hold:
                break
        self._hang_up()
        return Measured(steps=tuple(steps), starts=tuple(starts))

    def _hang_up(self) -> None:
        for line in (*self._lines, *self._direct):
            line.close()
        self._lines.clear()
        self._direct.clear()

    # A level of concurrency.

    async def _step(self, count: int) -> Step:
        """Hold `count` sessions; measure when they have settled."""
        await self._make_lines(count)
        arriving = asyncio.create_task(self._arrive(count))
        try:
            await asyncio.sleep(self._plan.ramp_s + self._plan.settle_s)
            self.tally, began_s, used_s = Tally(), time.monotonic(), self._cpu_s()
            held = array("d")
            while time.monotonic() - began_s < self._plan.seconds:
                await asyncio.sleep(HELD_INTERVAL_S)
                held.append(len(self.open))
            seconds, cpu_s = time.monotonic() - began_s, self._cpu_s() - used_s
        finally:
            arriving.cancel()
        tally = self.tally
        step = Step(
            wanted=count,
            held=round(sum(held) / len(held), 1),
            seconds=round(seconds, 3),
            messages_per_s=round(tally.messages / seconds, 1),
            texts_per_s=round(tally.texts / seconds, 1),
            through=percentiles_ms(tally.latency_ns),
            direct=percentiles_ms(tally.direct_ns),
            cpu=round(cpu_s / seconds, 4) if self._door else None,
            rss_bytes=self._door.memory_info().rss if self._door else None,
            starts_per_s=round(len(tally.start_ns) / seconds, 1),
            start_ms=percentiles_ms(tally.start_ns),
            refused=tally.refused,
            errors=dict(tally.errors),
        )
        self._progress(f"{count} sessions: P99 {step.through.p99 if step.through else '–'} ms")
        return step

    async def _arrive(self, count: int) -> None:
        """Poisson arrivals that hold `count` sessions, after those that are missing have come within the ramp."""
        loop, length_s = asyncio.get_running_loop(), self._plan.length_s
        began_s = loop.time()
        missing = count - len(self.open)
        ramp = (self._plan.ramp_s * number / missing for number in range(missing))
        for due_s in merged(ramp, arrivals(count / length_s, self._random)):
            await asyncio.sleep(began_s + due_s - loop.time())
            self._call(self._random.expovariate(1 / length_s))
            await self._call_directly()

    def _call(self, length_s: float) -> None:
        line = min(self._lines, key=lambda line: len(line.callers))
        id = f"s{next(self._ids)}"
        caller = Caller(self, line, id, speech(length_s, self._plan.tokens_per_s, Random(f"{self._plan.seed}/{id}")))
        self.open.add(caller)
        line.begin(caller, Start(session=id, voice=self._random.choice(self.target.voices)))

    async def _call_directly(self) -> None:
        """Keep as many sessions with workers as are wanted for the baseline."""
        self._direct = [line for line in self._direct if line.callers]
        while self.target.direct and len(self._direct) < self._plan.direct_sessions:
            worker = self.target.direct[len(self._direct) % len(self.target.direct)]
            headers = {"Authorization": f"Bearer {self.target.fleet_secret}"}
            line = await Line.connect(f"{worker.address}/session", headers, direct=True)
            assert self.target.direct_voice
            id = f"direct-{next(self._ids)}"
            text = speech(self._plan.length_s, self._plan.tokens_per_s, Random(id))
            line.begin(
                Caller(self, line, id, text), Assign(session=id, epoch=worker.epoch, voice=self.target.direct_voice)
            )
            self._direct.append(line)

    async def _make_lines(self, count: int) -> None:
        """Sockets for `count` sessions and some more."""
        address = self.target.url.rstrip("/").replace("http", "ws", 1) + "/v1/sessions"
        headers = {"Authorization": f"Bearer {self.target.key}"} if self.target.key else {}
        while len(self._lines) * self._plan.sessions_per_socket < count * 1.25:
            self._lines.append(await Line.connect(address, headers))

    # Starts.

    async def _starts(self, rate_per_s: float) -> Starts:
        """Begin short sessions at `rate_per_s`, whatever becomes of them."""
        await self._make_lines(round(rate_per_s * 2))
        idle_calls = await self._redis_calls()
        await asyncio.sleep(self._plan.idle_s if idle_calls is not None else 0)
        first_calls, self.tally, used_s = await self._redis_calls(), Tally(), self._cpu_s()
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        for due_s in itertools.takewhile(lambda due_s: due_s < self._plan.starts_s, arrivals(rate_per_s, self._random)):
            await asyncio.sleep(began_s + due_s - loop.time())
            self.tally.begun += 1
            self._call(len(SHORT_TEXT) / CHARS_PER_S)
        cpu_s = self._cpu_s() - used_s
        with suppress(TimeoutError):
            async with asyncio.timeout(self._plan.patience_s):
                while self.open:
                    await asyncio.sleep(HELD_INTERVAL_S)
        tally, elapsed_s, calls = self.tally, loop.time() - began_s, None
        if idle_calls is not None and first_calls is not None:
            last_calls = await self._redis_calls()
            assert last_calls is not None
            calls = last_calls - first_calls - (first_calls - idle_calls) / self._plan.idle_s * elapsed_s
        measured = Starts(
            offered_per_s=rate_per_s,
            begun=tally.begun,
            done=tally.done,
            start_ms=percentiles_ms(tally.start_ns),
            cpu=round(cpu_s / self._plan.starts_s, 4) if self._door else None,
            refused=tally.refused,
            errors=dict(tally.errors),
            redis_calls=round(calls / tally.begun, 2) if calls is not None and tally.begun else None,
        )
        self._progress(f"{rate_per_s:g} starts/s: {'held' if measured.hold else 'not held'}")
        return measured

    # What the processes behind the target cost.

    def _cpu_s(self) -> float:
        """User and system time of the front door so far."""
        if self._door is None:
            return 0.0
        times = self._door.cpu_times()
        return times.user + times.system

    async def _redis_calls(self) -> int | None:
        """Calls of the registry's script so far: each is one round trip."""
        if self.target.redis_url is None:
            return None
        async with Redis.from_url(self.target.redis_url) as redis:
            stats = await redis.info("commandstats")
        return sum(stats.get(f"cmdstat_{command}", {}).get("calls", 0) for command in ("evalsha", "eval"))


def speech(length_s: float, tokens_per_s: float, random: Random) -> Iterator[tuple[float, str]]:
    """The text of `length_s` of speech: pieces, and when each is due; the last is empty and stands for `eos`.

    A turn's text is written at a model's pace, and the next one shortly before it has been heard.
    """
    chars = max(len(SHORT_TEXT), round(length_s * CHARS_PER_S))
    written, due_s = 0, 0.0
    for text in itertools.cycle(TEXTS):
        if written >= chars:
            break
        turn = f"{text[: chars - written].rstrip('.,!? ')}. "
        began_s = max(due_s, written / CHARS_PER_S - EARLY_S)
        for later_s, piece in as_a_model_writes(turn, tokens_per_s, random):
            due_s = began_s + later_s
            yield due_s, piece
        written += len(turn)
    yield due_s, ""


def merged(ramp: Iterator[float], poisson: Iterator[float]) -> Iterator[float]:
    """Both, in order of time."""
    following = next(poisson)
    for due_s in ramp:
        while following < due_s:
            yield following
            following = next(poisson)
        yield due_s
    yield following
    yield from poisson


async def measure(target: Target, plan: Plan) -> Measured:
    """Load the target as planned. Raises WorkerLost when it cannot be reached."""
    gc.freeze()
    try:
        return await Load(target, plan, lambda text: print(text, file=sys.stderr, flush=True)).run()
    except (OSError, WSError) as error:
        raise WorkerLost(f"{target.url} cannot be reached ({type(error).__name__})") from error


def main() -> None:
    told = json.load(sys.stdin)
    target, plan = Target.model_validate(told["target"]), Plan.model_validate(told["plan"])
    print(uvloop.run(measure(target, plan)).model_dump_json())


if __name__ == "__main__":
    main()
