"""The runner of every stage of a clone job: `python -m training.<stage> RUN_DIR`, a process of its own.

A stage reads RUN_DIR/run.json and the settings' variables, and writes one JSON object a line on standard output: its
events, the last of them `done` or `error`; everything else goes to standard error. SIGTERM ends it with exit code 143.
Importing this needs no torch, which takes seconds.
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
from typing import IO, TYPE_CHECKING, Any, Protocol, Self, TypeVar

from pydantic import ValidationError

from app.errors import CarillonError, ConfigurationError, OutOfMemory, StageFailed
from app.speech.field_errors import first_fault
from app.voices.models import RunConfig

if TYPE_CHECKING:
    import torch

DONE, FAILED, TERMINATED = 0, 1, 143

T = TypeVar("T")

log = logging.getLogger(__name__)


class Stopped(BaseException):
    """The process must end. Not an Exception, so that no library catches it."""


class Events:
    """Events for the parent process, a line each. A parent that is gone counts as a signal to stop."""

    def __init__(self, lines: IO[str]) -> None:
        self._lines = lines

    @classmethod
    def on_standard_output(cls) -> Self:
        """From here on what a library prints goes to standard error: it must not break the lines."""
        lines = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        return cls(lines)

    def emit(self, event: str, **fields: Any) -> None:
        try:
            self._lines.write(json.dumps({"event": event, **fields}) + "\n")
            self._lines.flush()
        except BrokenPipeError:
            raise Stopped from None


class Emit(Protocol):
    """`emit("progress", **fields)`: one event for the process that started the stage."""

    def __call__(self, event: str, **fields: Any) -> None: ...


Work = Callable[[Path, Emit], Mapping[str, Any] | None]
"""A stage's work in its directory; what it returns goes out with `done`. Raises CarillonError."""


def read_run(directory: Path) -> RunConfig:
    """The run's configuration with its paths resolved. Raises ConfigurationError."""
    path = directory / "run.json"
    try:
        run = RunConfig.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}; write the run's configuration") from None
    except ValidationError as error:
        place, reason = first_fault(error)
        raise ConfigurationError(f"{path.name}: {place}: {reason}") from None
    return run.model_copy(update={name: directory / getattr(run, name) for name in ("model_dir", "codec_dir")})


def torch_device(run: RunConfig) -> torch.device:
    """Where to compute; on a CPU torch gets the run's threads. Raises ConfigurationError where no GPU is seen."""
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # as nvidia-smi counts
    import torch

    if run.device == "cuda" and not torch.cuda.is_available():
        raise ConfigurationError("device is cuda, but torch sees no GPU here; check the driver, or set it to auto")
    if run.device == "cuda" or (run.device == "auto" and torch.cuda.is_available()):
        return torch.device("cuda")
    torch.set_num_threads(run.threads)
    return torch.device("cpu")


def breakage(what: str, error: Exception) -> CarillonError:
    """What to report of an error that is not ours: the system's (a full disk, a lost file) may be over the next time,
    and so may a card's want of memory, which others use too.
    """
    kind = StageFailed if isinstance(error, OSError) else CarillonError
    if type(error).__name__ == "OutOfMemoryError":  # torch's, which is not imported for it
        kind = OutOfMemory
    return kind(f"{what} broke: {type(error).__name__}: {error}")


def run_stage(work: Work, directory: Path, events: Events) -> int:
    """Do the work, report how it ended, and return the exit code."""
    try:
        events.emit("done", **(work(directory, events.emit) or {}))
        return DONE
    except Stopped:
        return TERMINATED
    except CarillonError as error:
        failure = error
    except Exception as error:
        log.exception("stage broke")
        failure = breakage("the stage", error)
    events.emit("error", code=failure.code, message=failure.message, retryable=failure.retryable)
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
