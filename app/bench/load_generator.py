"""The load generator of `carillon bench fleet`: a process of its own, with a `Target` and a `Plan` on its input.

    python -m app.bench.load_generator  <  {"target": …, "plan": …}  >  Measured

Clients of `WS /v1/sessions`, many sessions on a socket. Sessions arrive as a Poisson process, independent of those
before; their lengths are exponential; they speak without a pause, and their text comes as a language model writes it.
Beside them, in the same seconds, some sessions go straight to the workers: the way there and back without the front
door. It counts what comes and reads the time at the head of each frame, and does not decode it.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import sys
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import suppress
from random import Random

import psutil
import uvloop
from picows import WSError
from redis.asyncio import Redis

from app.bench.figures import Measured, Plan, Starts, Step, Target, arrivals, percentiles_ms
from app.bench.load_client import Caller, Line, Meter, Tally
from app.bench.sessions import TEXTS, as_a_model_writes
from app.errors import WorkerLost
from app.speech.protocol import Assign, Start

CHARS_PER_S = 14.0
SHORT_TEXT = "Yes."
EARLY_S = 1.0
"""How long before the end of a turn's audio the text of the next one comes."""

HELD_INTERVAL_S = 0.1


class Load:
    """Sessions on one target, and what they come to."""

    def __init__(self, target: Target, plan: Plan, progress: Callable[[str], None]) -> None:
        self._target = target
        self._meter = Meter(target)
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
        """Hold `count` sessions; measure when they are steady."""
        await self._make_lines(count)
        arriving = asyncio.create_task(self._arrive(count))
        try:
            await asyncio.sleep(self._plan.ramp_s + self._plan.settle_s)
            self._meter.tally, began_s, used_s = Tally(), time.monotonic(), self._cpu_s()
            held = array("d")
            while time.monotonic() - began_s < self._plan.seconds:
                await asyncio.sleep(HELD_INTERVAL_S)
                held.append(len(self._meter.open))
            seconds, cpu_s = time.monotonic() - began_s, self._cpu_s() - used_s
        finally:
            arriving.cancel()
        tally = self._meter.tally
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
        missing = count - len(self._meter.open)
        ramp = (self._plan.ramp_s * number / missing for number in range(missing))
        for due_s in merged(ramp, arrivals(count / length_s, self._random)):
            await asyncio.sleep(began_s + due_s - loop.time())
            self._call(self._random.expovariate(1 / length_s))
            await self._call_directly()

    def _call(self, length_s: float) -> None:
        line = min(self._lines, key=lambda line: len(line.callers))
        id = f"s{next(self._ids)}"
        caller = Caller(
            self._meter, line, id, speech(length_s, self._plan.tokens_per_s, Random(f"{self._plan.seed}/{id}"))
        )
        self._meter.open.add(caller)
        line.begin(caller, Start(session=id, voice=self._random.choice(self._target.voices)))

    async def _call_directly(self) -> None:
        """Keep as many sessions with workers as the baseline needs."""
        self._direct = [line for line in self._direct if line.callers]
        voice = self._target.direct_voice
        while voice and self._target.direct and len(self._direct) < self._plan.direct_sessions:
            worker = self._target.direct[len(self._direct) % len(self._target.direct)]
            headers = {"Authorization": f"Bearer {self._target.fleet_secret}"}
            line = await Line.connect(f"{worker.address}/session", headers, direct=True)
            id = f"direct-{next(self._ids)}"
            text = speech(self._plan.length_s, self._plan.tokens_per_s, Random(id))
            line.begin(Caller(self._meter, line, id, text), Assign(session=id, epoch=worker.epoch, voice=voice))
            self._direct.append(line)

    async def _make_lines(self, count: int) -> None:
        """Sockets for `count` sessions and some more."""
        address = self._target.url.rstrip("/").replace("http", "ws", 1) + "/v1/sessions"
        headers = {"Authorization": f"Bearer {self._target.key}"} if self._target.key else {}
        while len(self._lines) * self._plan.sessions_per_socket < count * 1.25:
            self._lines.append(await Line.connect(address, headers))

    # Starts.

    async def _starts(self, rate_per_s: float) -> Starts:
        """Begin short sessions at `rate_per_s`, whether or not they are served."""
        await self._make_lines(round(rate_per_s * 2))
        idle_calls = await self._redis_calls()
        await asyncio.sleep(self._plan.idle_s if idle_calls is not None else 0)
        first_calls, self._meter.tally, used_s = await self._redis_calls(), Tally(), self._cpu_s()
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        for due_s in itertools.takewhile(lambda due_s: due_s < self._plan.starts_s, arrivals(rate_per_s, self._random)):
            await asyncio.sleep(began_s + due_s - loop.time())
            self._meter.tally.begun += 1
            self._call(len(SHORT_TEXT) / CHARS_PER_S)
        cpu_s = self._cpu_s() - used_s
        with suppress(TimeoutError):
            async with asyncio.timeout(self._plan.patience_s):
                while self._meter.open:
                    await asyncio.sleep(HELD_INTERVAL_S)
        tally, elapsed_s, calls = self._meter.tally, loop.time() - began_s, None
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
        if self._target.redis_url is None:
            return None
        async with Redis.from_url(self._target.redis_url) as redis:
            stats = await redis.info("commandstats")
        return sum(stats.get(f"cmdstat_{command}", {}).get("calls", 0) for command in ("evalsha", "eval"))


def speech(length_s: float, tokens_per_s: float, random: Random) -> Iterator[tuple[float, str]]:
    """The text of `length_s` of speech: pieces, and when each is due; the last is empty and stands for `eos`.

    A turn's text is written at a model's pace, and the next one shortly before it has been played.
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
    request = json.load(sys.stdin)
    target, plan = Target.model_validate(request["target"]), Plan.model_validate(request["plan"])
    print(uvloop.run(measure(target, plan)).model_dump_json())


if __name__ == "__main__":
    main()
