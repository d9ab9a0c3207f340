"""A stage of a clone job as its parent sees it: `python -m training.<stage> RUN_DIR`, a process of its own.

It reads RUN_DIR/run.json and the settings' variables, and writes one JSON object a line on standard output: what it has
to tell, then `done` or `error`; everything else goes to standard error. SIGTERM ends it with exit code 143.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import IO, Any, Protocol, Self, TypeVar

from app.errors import CarillonError
from training.run import Stopped, breakage

DONE, FAILED, TERMINATED = 0, 1, 143

T = TypeVar("T")

log = logging.getLogger(__name__)


class Events:
    """What the parent process reads, a line each. That it has gone is as good as a signal to stop."""

    def __init__(self, lines: IO[str]) -> None:
        self._lines = lines

    @classmethod
    def on_standard_output(cls) -> Self:
        """From here on what a library prints goes to standard error: it must not break the lines."""
        lines = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        return cls(lines)

    def tell(self, event: str, **fields: Any) -> None:
        try:
            self._lines.write(json.dumps({"event": event, **fields}) + "\n")
            self._lines.flush()
        except BrokenPipeError:
            raise Stopped from None


class Tell(Protocol):
    """`tell("progress", **fields)`: one event for whoever started the stage."""

    def __call__(self, event: str, **fields: Any) -> None: ...


Work = Callable[[Path, Tell], Mapping[str, Any] | None]
"""A stage's work in its directory; what it returns goes out with `done`. Raises CarillonError."""


def run_stage(work: Work, directory: Path, events: Events) -> int:
    """Do the work, tell how it ended, and return the exit code."""
    try:
        events.tell("done", **(work(directory, events.tell) or {}))
        return DONE
    except Stopped:
        return TERMINATED
    except CarillonError as error:
        failure = error
    except Exception as error:
        log.exception("stage broke")
        failure = breakage("the stage", error)
    events.tell("error", code=failure.code, message=failure.message, retryable=failure.retryable)
    return FAILED


def run_cancellable(main: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run`, in which SIGTERM cancels `main`, so that sessions end and places are given back.

    Raises Stopped when it was.
    """

    async def cancellable() -> T:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await main

    before = signal.getsignal(signal.SIGTERM)
    try:
        return asyncio.run(cancellable())
    except asyncio.CancelledError:
        raise Stopped from None
    finally:
        signal.signal(signal.SIGTERM, before)


def main(work: Work) -> int:
    """A stage's entry point. Outside of `run_cancellable` there is nothing to tidy up, so SIGTERM ends it at once."""
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(TERMINATED))
    logging.basicConfig(level=logging.WARNING)
    return run_stage(work, Path(sys.argv[1]), Events.on_standard_output())
