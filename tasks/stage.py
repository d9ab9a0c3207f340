"""A stage of a job as a process of its own: `python -m training.<stage> RUN_DIR`, whose standard output is JSON lines.

The kernel kills the process when this one dies, so that no trainer outlives its task; what it has done until then lies
in its directory. Cancelling the coroutine asks the process to stop, then kills it. What a stage does is not known here.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from app.errors import CarillonError, OutOfMemory, Overloaded, StageFailed
from app.platform import reaper

STOP_GRACE_S = 8.0
"""A cancelled job has 10 s to end; a trainer saves its checkpoint in one or two."""

MAX_LINE_BYTES = 64 * 1024 * 1024

SILENCE_S = 900.0
"""A stage reports every recording, step and utterance; one that is silent for so long hangs."""

MEMORY_TRIES, MEMORY_PAUSE_S = 4, 30.0
"""Of a training that a card has no memory for: the process that has it may be gone soon."""

log = logging.getLogger(__name__)

ENDINGS = ("done", "error", "stopped")

Event = dict[str, Any]


async def run_stage(
    stage: str, directory: Path, on_event: Callable[[Event], Awaitable[None]], *, threads: int = 1
) -> Event:
    """Run a stage to its end; every event on the way goes to `on_event`. Returns the last, `done`.

    `threads` are OpenMP's, on a CPU; they wait asleep, for spinning ones starve every other process.
    Raises what the stage reports as its error, StageFailed when it was killed or broke.
    """
    command = [sys.executable, reaper.__file__, "exec", str(os.getpid()), sys.executable, "-m", f"training.{stage}"]
    process = await asyncio.create_subprocess_exec(
        *command,
        str(directory),
        env={**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"},
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
        limit=MAX_LINE_BYTES,
    )
    assert process.stdout
    last: Event = {}
    try:
        while line := await _line(stage, process.stdout):
            last = _parsed(line)
            if last["event"] not in ENDINGS:
                await on_event(last)
        code = await process.wait()
    finally:
        await _end(process)
    if last.get("event") == "error":
        raise CarillonError.from_wire(str(last["code"]), str(last["message"]))
    if last.get("event") != "done" or code != 0:
        raise StageFailed(f"{stage} ended with status {code} and without a result; its log says more")
    return last


async def with_memory(
    stage: Callable[[], Awaitable[Event]], *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> Event:
    """A stage that needs a card, run until it is over.

    It yields to a worker that starts, however often, and continues from its checkpoint when there is room. Other
    shortage of memory may pass, too: OutOfMemory is raised, for another attempt, when it has come `MEMORY_TRIES` times.
    """
    tries_left = MEMORY_TRIES
    while True:
        try:
            return await stage()
        except Overloaded as error:
            log.info("training makes way", extra={"reason": error.message})
        except OutOfMemory as error:
            tries_left -= 1
            log.warning("training out of memory", extra={"reason": error.message, "tries_left": tries_left})
            if not tries_left:
                raise
            await sleep(MEMORY_PAUSE_S)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Nothing of the process group is left afterwards, however this coroutine ends."""
    try:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            with suppress(TimeoutError):
                async with asyncio.timeout(STOP_GRACE_S):
                    await process.wait()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def _line(stage: str, stdout: asyncio.StreamReader) -> bytes:
    try:
        async with asyncio.timeout(SILENCE_S):
            return await stdout.readline()
    except TimeoutError:
        raise StageFailed(f"{stage} told nothing for {SILENCE_S:g} s and was stopped") from None


def _parsed(line: bytes) -> Event:
    try:
        event = json.loads(line)
    except ValueError:
        event = None
    if not isinstance(event, dict) or "event" not in event:
        raise StageFailed("a stage printed something that is no event; only JSON lines belong on its standard output")
    return event
