"""Table 3, end to end: how many streams a worker carries, heard over its socket.

Sessions start by a Poisson process whose pace does not wait for the worker, and choose their voices by Zipf's law. What
a level is, and which comes next, is in `levels`.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from app.bench.gpu.levels import SAMPLE_RATE_HZ, Heard, figures_of, next_level
from app.bench.gpu.plan import Measurement
from app.bench.gpu.random_model import adapter_version
from app.bench.gpu.results import Result
from app.bench.gpu.stage import Emit, Job, main, own_program
from app.bench.gpu.worker import S_PER_CHAR
from app.bench.worker import EPOCH
from app.errors import CarillonError, ConfigurationError, DeadlineExceeded
from app.realtime.websocket import Wire, WireClosed
from app.speech.audio import HeadSilenceMeter, samples_of
from app.speech.protocol import Assign, AudioFrame, Eos, Error, Text
from app.speech.voices import Voice

SECRET = "bench"
RAMP_S = 4.0
"""In which a level's streams begin, each at another place of its speech."""

PATIENCE_S = 20.0
"""Beyond its own length, for a session to end."""

WORDS = "The ferryman counted his lanterns twice before the evening crossing began. "


class SpeechStage:
    def __init__(self, job: Job) -> None:
        self._job = job
        self._worker = AsyncExitStack()
        self._until_s = None if job.left_s is None else time.monotonic() + job.left_s

    async def measure(self, measurement: Measurement, emit: Emit) -> Mapping[str, Any]:
        precision, voices = measurement.word("precision"), measurement.number("voices")
        known = [each for each in self._job.known if each.name == "level" and each.parameters["precision"] == precision]
        holds = {int(each.parameters["streams"]): bool(each.figures["holds"]) for each in known if not each.error}
        worker: _Worker | None = None
        while (streams := next_level(self._job.sizes.streams, holds)) is not None:
            self._check_time(streams)
            worker = worker or await self._started(precision, voices)
            figures = await self._level(worker, streams, voices)
            holds[streams] = figures["holds"]
            emit(
                Result(
                    table="speech",
                    name="level",
                    parameters={"precision": precision, "voices": voices, "streams": streams},
                    figures=figures,
                )
            )
        return {"streams": max((streams for streams, held in holds.items() if held), default=0)}

    async def aclose(self) -> None:
        await self._worker.aclose()

    def _check_time(self, streams: int) -> None:
        sizes = self._job.sizes
        if self._until_s and time.monotonic() + RAMP_S + sizes.window_s + sizes.speech_s > self._until_s:
            raise DeadlineExceeded(f"the time was over before {streams} streams; the same command goes on")

    async def _started(self, precision: str, voices: int) -> _Worker:
        await self._worker.aclose()
        job = self._job
        return self._worker.enter_context(_worker(job, precision, slots=voices, streams=2 * max(job.sizes.streams)))

    async def _level(self, worker: _Worker, streams: int, voices: int) -> dict[str, Any]:
        """Listen for `window_s` to sessions that start, once as many speak as shall on average."""
        draw = random.Random(streams)
        speech_s, window_s = self._job.sizes.speech_s, self._job.sizes.window_s
        chosen = worker.voices[:voices]
        weights = [1 / rank for rank in range(1, len(chosen) + 1)]
        counted: list[Heard] = []
        listeners: list[asyncio.Task[None]] = []
        begun_s = time.monotonic()

        async with asyncio.TaskGroup() as group:

            def start(at_s: float, length_s: float, *, counts: bool) -> None:
                heard = Heard(begun_s + at_s)
                if counts:
                    counted.append(heard)
                (voice,) = draw.choices(chosen, weights)
                task = group.create_task(_listen(worker, voice, heard, length_s))
                if counts:
                    listeners.append(task)
                else:
                    others.append(task)

            others: list[asyncio.Task[None]] = []
            for number in range(streams):
                start(RAMP_S * number / streams, speech_s * draw.uniform(0.2, 1), counts=False)
            at_s = RAMP_S
            # Starts go on until those that count have ended: the load stays what it is.
            while at_s < RAMP_S + window_s or not all(task.done() for task in listeners):
                at_s += draw.expovariate(streams / speech_s)
                await asyncio.sleep(max(0.0, begun_s + at_s - time.monotonic()))
                start(at_s, speech_s, counts=at_s < RAMP_S + window_s or not counted)
            for task in others:
                task.cancel()
        return figures_of(counted)


@dataclass(frozen=True)
class _Worker:
    address: str
    voices: tuple[Voice, ...]


@contextmanager
def _worker(job: Job, precision: str, *, slots: int, streams: int) -> Iterator[_Worker]:
    """A worker in a process of its own, serving; it is stopped at the end."""
    options = ("--precision", precision, "--slots", str(slots), "--streams", str(streams))
    process = subprocess.Popen(
        own_program("app.bench.gpu.worker", *options),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"CARILLON_FLEET_SECRET": SECRET, "CARILLON_LOG_LEVEL": "ERROR"},
    )
    assert process.stdin and process.stdout
    try:
        process.stdin.write(job.model_dump_json())
        process.stdin.close()
        said = next((line for line in process.stdout if line.startswith('{"address"')), None)
        if said is None:
            raise ConfigurationError("the worker has ended before it served; what it says is above")
        facts = json.loads(said)
        base = Voice(id=facts["voice"], name=facts["voice"], model=facts["model"])
        clones = (
            Voice(
                id=f"voice{number}", name=f"voice{number}", model=facts["model"], adapter=adapter_version(path, number)
            )
            for number, path in enumerate(job.adapters[:slots], 1)
        )
        yield _Worker(facts["address"], (base, *clones))
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


_numbers = itertools.count()


async def _listen(worker: _Worker, voice: Voice, heard: Heard, length_s: float) -> None:
    """One session, from its start to its last sample."""
    await asyncio.sleep(max(0.0, heard.started_s - time.monotonic()))
    try:
        async with asyncio.timeout(length_s + PATIENCE_S):
            await _hear(worker, voice, heard, length_s)
    except (OSError, TimeoutError, WireClosed, CarillonError) as error:
        heard.error = f"{type(error).__name__}: {error}"[:200]


async def _hear(worker: _Worker, voice: Voice, heard: Heard, length_s: float) -> None:
    session = f"s{next(_numbers)}"
    meter = HeadSilenceMeter(SAMPLE_RATE_HZ)
    wire = await Wire.connect(f"{worker.address}/session", {"Authorization": f"Bearer {SECRET}"}, timeout_s=10)
    try:
        assign = Assign(session=session, epoch=EPOCH, voice=voice, pace="realtime")
        chars = max(8, round(length_s / S_PER_CHAR))
        text = (WORDS * (1 + chars // len(WORDS)))[:chars]
        for message in (assign, Text(session=session, text=text), Eos(session=session)):
            wire.send(message.model_dump_json(exclude_none=True))
        while True:
            raw = await wire.receive()
            if isinstance(raw, bytes):
                samples = samples_of(AudioFrame.unpack(raw).audio)
                heard.take(len(samples), time.monotonic())
                heard.head_silence_s = meter.push(samples)
            elif '"type":"error"' in raw:
                raise Error.model_validate_json(raw).rebuilt()
            elif '"type":"done"' in raw:
                heard.head_silence_s = meter.finish()
                return
    finally:
        wire.abort()


if __name__ == "__main__":
    main(SpeechStage)
