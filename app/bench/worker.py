"""`carillon bench worker`: what a session costs a worker's own process, apart from the engine's core and the codec.

The workers of several checkouts are loaded in turn with the same sessions over their sockets, so that a busy machine is
as busy for each. CPU seconds are the kernel's, of the process and of its first thread, which has the event loop. Their
checkpoint is tiny, with random weights and a tokenizer of Orpheus's kind: the stand-in's own looks up how each word is
said, which is half of a worker's work. It knows the protocol, and `workers/bench/scripted_worker.py` as a program.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import psutil

from app.bench.gpu.random_model import TINY, save_codec, save_model
from app.errors import ConfigurationError
from app.realtime.websocket import Wire, WireClosed
from app.speech.protocol import Assign, AudioFrame, Error, Text
from app.speech.voices import Voice

SECRET = "bench"
SAMPLES_PER_FRAME = 2048
SAMPLE_RATE_HZ = 24_000
BYTES_PER_SAMPLE = 2
RAMP_S = 3.0
"""Sessions begin over so long, about the length of their sentences, and each has another place in them then."""

TEXT = "The ferryman counted his lanterns twice before the evening crossing began. " * 30
SCRIPT = Path(__file__).resolve().parents[2] / "workers" / "bench" / "scripted_worker.py"
EPOCH = 1
SHAPE = replace(TINY, text_tokens=4096)
"""Its tokenizer has merges: words are a few tokens, as Llama's are."""


@dataclass(frozen=True, slots=True)
class Load:
    """One measurement: CPU seconds per second, of the process and of its event loop's thread; frames that came in a
    second; the share of time in which a listener had no audio."""

    sessions: int
    cores: float
    loop_cores: float
    frames_per_s: float
    dry: float

    @property
    def us_per_frame(self) -> float:
        return self.cores / self.frames_per_s * 1e6

    @property
    def loop_us_per_frame(self) -> float:
        return self.loop_cores / self.frames_per_s * 1e6


@dataclass(frozen=True, slots=True)
class Side:
    """A checkout, and what was measured of its worker."""

    path: Path
    loads: list[Load] = field(default_factory=list)

    def of(self, sessions: int) -> list[Load]:
        return [load for load in self.loads if load.sessions == sessions]


def run(
    paths: Sequence[Path],
    *,
    sessions: Sequence[int],
    rounds: int,
    seconds: float,
    pace: float,
    progress: Callable[[str], None],
) -> list[Side]:
    """Load each checkout's worker `rounds` times for `seconds` at each level, in turn.

    Raises ConfigurationError where one does not start.
    """
    sides = [Side(path.resolve()) for path in paths]
    with ExitStack() as stack:
        checkpoint = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        save_model(checkpoint / "model", SHAPE, device="cpu")
        save_codec(checkpoint / "codec", SHAPE)
        workers = []
        for side in sides:
            progress(f"starting {side.path}")
            capacity = 2 * max(sessions)  # those of the measurement before have not all ended yet
            workers.append(stack.enter_context(_worker(side.path, checkpoint, capacity=capacity, pace=pace)))
        for count in sessions:
            for number in range(1, rounds + 1):
                for side, worker in zip(sides, workers, strict=True):
                    progress(f"{count} sessions, round {number} of {rounds}: {side.path.name}")
                    side.loads.append(asyncio.run(_measured(worker, count, seconds)))
    return sides


def table(sides: Sequence[Side]) -> str:
    """Medians, a line for each level and checkout; with several, the last one's ratio to the first."""
    lines = [
        "| sessions | checkout | cores | of the event loop | µs a frame | of the event loop | without audio, % |",
        "|---|---|---|---|---|---|---|",
    ]
    for count in dict.fromkeys(load.sessions for load in sides[0].loads):
        rows = [_medians(side.of(count)) for side in sides]
        for side, row in zip(sides, rows, strict=True):
            lines.append(
                f"| {count} | {side.path.name} | {row[0]:.2f} | {row[1]:.2f} | {row[2]:.0f} | {row[3]:.0f} "
                f"| {row[4]:.1f} |"
            )
        if len(sides) > 1:
            ratios = " | ".join(f"{last / first:.2f}" for first, last in zip(rows[0][:4], rows[-1][:4], strict=True))
            lines.append(f"| | last ÷ first | {ratios} | |")
    return "\n".join(lines)


def as_json(sides: Sequence[Side]) -> str:
    measured = [{"checkout": str(side.path), "loads": [asdict(load) for load in side.loads]} for side in sides]
    return json.dumps(measured, indent=2)


def _medians(loads: Sequence[Load]) -> tuple[float, ...]:
    values = (
        (load.cores, load.loop_cores, load.us_per_frame, load.loop_us_per_frame, 100 * load.dry) for load in loads
    )
    return tuple(statistics.median(column) for column in zip(*values, strict=True))


@dataclass(frozen=True, slots=True)
class _Worker:
    process: psutil.Process
    address: str
    voice: Voice

    def cpu_s(self) -> tuple[float, float]:
        """Of the process, and of its first thread."""
        times = self.process.cpu_times()
        loop = next(thread for thread in self.process.threads() if thread.id == self.process.pid)
        return times.user + times.system, loop.user_time + loop.system_time


@contextmanager
def _worker(checkout: Path, checkpoint: Path, *, capacity: int, pace: float) -> Iterator[_Worker]:
    """A scripted worker of a checkout, serving; it is stopped at the end."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("CARILLON_")}
    process = subprocess.Popen(
        [sys.executable, "-P", str(SCRIPT), str(checkpoint), "--sessions", str(capacity), "--pace", str(pace)],
        cwd=checkout,
        env=own | {"PYTHONPATH": str(checkout), "CARILLON_FLEET_SECRET": SECRET, "CARILLON_LOG_LEVEL": "ERROR"},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        said = next((line for line in process.stdout if line.startswith('{"address"')), None)
        if said is None:
            raise ConfigurationError(f"the worker of {checkout} has ended before it served; what it says is above")
        facts = json.loads(said)
        voice = Voice(id=facts["voice"], name=facts["voice"], model=facts["model"])
        yield _Worker(psutil.Process(process.pid), facts["address"], voice)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


async def _measured(worker: _Worker, count: int, seconds: float) -> Load:
    """Have `count` sessions speak, and measure once all have begun."""
    listeners = [_Listener(worker, f"s{number}-{time.monotonic_ns()}") for number in range(count)]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(each.run(RAMP_S * index / count)) for index, each in enumerate(listeners)]
        await asyncio.sleep(RAMP_S + 1.0)
        before, began_s = worker.cpu_s(), time.monotonic()
        for each in listeners:
            each.begin_counting()
        await asyncio.sleep(seconds)
        after, taken_s = worker.cpu_s(), time.monotonic() - began_s
        samples = sum(each.samples for each in listeners)
        dry_s = sum(each.dry_s for each in listeners)
        for task in tasks:
            task.cancel()
    process_s, loop_s = (end - start for start, end in zip(before, after, strict=True))
    return Load(
        sessions=count,
        cores=process_s / taken_s,
        loop_cores=loop_s / taken_s,
        frames_per_s=samples / SAMPLES_PER_FRAME / taken_s,
        dry=dry_s / taken_s / count,
    )


class _Listener:
    """One session: it takes what comes, and counts samples and the time in which it had none left."""

    def __init__(self, worker: _Worker, name: str) -> None:
        self.samples = 0
        self.dry_s = 0.0
        self._worker = worker
        self._name = name
        self._plays_until_s = 0.0

    def begin_counting(self) -> None:
        self.samples, self.dry_s = 0, 0.0

    async def run(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        headers = {"Authorization": f"Bearer {SECRET}"}
        wire = await Wire.connect(f"{self._worker.address}/session", headers, timeout_s=10)
        try:
            assign = Assign(session=self._name, epoch=EPOCH, voice=self._worker.voice)
            wire.send(_terse(assign))
            wire.send(_terse(Text(session=self._name, text=TEXT)))
            while True:
                raw = await wire.receive()
                if isinstance(raw, bytes):
                    self._heard(len(AudioFrame.unpack(raw).audio) // BYTES_PER_SAMPLE)
                elif '"type":"error"' in raw:
                    raise Error.model_validate_json(raw).rebuilt()
        except WireClosed:
            raise ConfigurationError(f"the worker closed session {self._name}") from None
        finally:
            wire.abort()

    def _heard(self, samples: int) -> None:
        now_s = time.monotonic()
        if self._plays_until_s:
            self.dry_s += max(0.0, now_s - self._plays_until_s)
        self._plays_until_s = max(now_s, self._plays_until_s) + samples / SAMPLE_RATE_HZ
        self.samples += samples


def _terse(message: Assign | Text) -> str:
    """Without what is as usual: an older worker may not know the field."""
    return json.dumps({"type": message.type} | message.model_dump(mode="json", exclude_defaults=True))
