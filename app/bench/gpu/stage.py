"""A process that measures: a job on its standard input, a result a line on its standard output.

What a library prints goes to standard error. A measurement that raises is a result with an error, and the next one is
begun; one that would not be over by the deadline is not begun.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from app.bench.gpu.plan import Measurement, Sizes
from app.bench.gpu.results import Result
from app.errors import CarillonError
from app.platform import reaper
from app.speech.voices import Frozen

OVERTIME_S = 60.0
"""How much longer than thought a stage may take before it is ended."""

log = logging.getLogger(__name__)

Emit = Callable[[Result], None]


class Job(Frozen):
    """What a stage measures: a voice model in directories, and its LoRAs, of which the first `warm_adapters` speak."""

    model_dir: Path
    codec_dir: Path
    adapters: tuple[Path, ...]
    warm_adapters: int
    device: str
    sizes: Sizes
    left_s: float | None
    """Of the time for everything; None: as long as it takes."""
    measurements: tuple[Measurement, ...]
    known: tuple[Result, ...] = ()
    """What an earlier run has of this table."""


class Stage(Protocol):
    """One program's way to measure."""

    async def measure(self, measurement: Measurement, emit: Emit) -> Mapping[str, Any]:
        """The figures. Parts of it that stand alone go to `emit` as they come."""
        ...

    async def aclose(self) -> None: ...


def run_stage(
    program: str, job: Job, *, environment: Mapping[str, str], progress: Callable[[str], None]
) -> Iterator[Result]:
    """Results as they come. A process that dies is the error of the measurement it had begun."""
    process = subprocess.Popen(
        own_program(program),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=dict(environment),
    )
    assert process.stdin and process.stdout
    begun: Measurement | None = None
    try:
        process.stdin.write(job.model_dump_json())
        process.stdin.close()
        for line in process.stdout:
            said = json.loads(line)
            if "begun" in said:
                begun = measurement = job.measurements[said["begun"]]
                progress(measurement.key)
            else:
                result = Result.model_validate(said)
                begun = None if begun and result.key == begun.key else begun
                yield result
        if (status := process.wait()) and begun:
            yield failed(begun, f"the process ended with {status}")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def own_program(module: str, *arguments: str) -> list[str]:
    """The command of a module that ends when this process does, however that ends."""
    program = (sys.executable, "-P", "-m", module, *arguments)
    return [sys.executable, reaper.__file__, "exec", str(os.getpid()), *program]


def failed(measurement: Measurement, error: str) -> Result:
    return _result(measurement, error=error[:500])


def _result(measurement: Measurement, **outcome: Any) -> Result:
    return Result(table=measurement.table, name=measurement.name, parameters=measurement.parameters, **outcome)


def main(make: Callable[[Job], Stage]) -> None:
    """A stage's program."""
    lines = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    logging.basicConfig(level=logging.ERROR)
    job = Job.model_validate_json(sys.stdin.read())

    def say(fields: Mapping[str, Any]) -> None:
        lines.write(json.dumps(fields) + "\n")

    asyncio.run(_measured(make(job), job.measurements, job.left_s, say))


async def _measured(
    stage: Stage, measurements: Sequence[Measurement], left_s: float | None, say: Callable[[Mapping[str, Any]], None]
) -> None:
    until_s = None if left_s is None else time.monotonic() + left_s

    def emit(result: Result) -> None:
        say(result.model_dump(mode="json"))

    try:
        for number, measurement in enumerate(measurements):
            if until_s is not None and time.monotonic() + measurement.about_s > until_s:
                continue
            say({"begun": number})
            limit_s = None if until_s is None else until_s - time.monotonic() + OVERTIME_S
            try:
                async with asyncio.timeout(limit_s):
                    emit(_result(measurement, figures=await stage.measure(measurement, emit)))
            except CarillonError as error:
                emit(failed(measurement, error.message))
            except Exception as error:  # of torch, vLLM, CUDA: the next one may succeed
                log.exception("a measurement failed")
                emit(failed(measurement, f"{type(error).__name__}: {error}"))
    finally:
        await stage.aclose()
