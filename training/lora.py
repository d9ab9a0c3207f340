"""Trains one voice's LoRA: `python -m training.lora RUN_DIR`, a process of its own that can be killed and run again.

    RUN_DIR/run.json       what to train (app.voices.models.RunConfig)
    RUN_DIR/dataset.npz    the clips (training.clips)
    RUN_DIR/checkpoints/   where to go on: a run begins at the newest complete one
    RUN_DIR/adapter/       the best adapter so far, and the result when the run is over

Standard output is one JSON object a line, whose `event` is `waiting` (for a card's memory), `notice`, `progress`,
`checkpoint`, `done`, `stopped` or `error`; everything else goes to standard error. SIGTERM and SIGINT save a checkpoint
and end the process. This module is what a parent process sees; the training itself is `training.loop`.
"""

from __future__ import annotations

import logging
import signal
import sys
from contextlib import suppress
from pathlib import Path
from types import FrameType

from app.errors import CarillonError
from training.seat import Seat, seat_of
from training.stage_runner import Events, Stopped, breakage, read_run

DONE, FAILED, STOPPED = 0, 1, 75
"""Exit codes. 75 is EX_TEMPFAIL of sysexits.h: a checkpoint is saved, run again to go on."""

logger = logging.getLogger(__name__)


class StopSignal:
    """Turns SIGTERM and SIGINT into Stopped: at once, or once deferred, when `check` is called."""

    def __init__(self) -> None:
        self._asked = False
        self._deferred = False

    def install(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._arrived)

    def defer(self) -> None:
        """From now on there is something to save before the process may end."""
        self._deferred = True

    def check(self) -> None:
        """Raises Stopped if a signal has come."""
        if self._asked:
            raise Stopped

    def _arrived(self, number: int, frame: FrameType | None) -> None:
        again, self._asked = self._asked, True
        if not (again or self._deferred):
            raise Stopped


def run_training(directory: Path, events: Events, stop: StopSignal, seat: Seat = seat_of) -> int:
    """Trains until done, stopped or failed, and returns which: an exit code."""
    try:
        run = read_run(directory)
        from training.loop import Training  # torch and transformers take seconds to import

        with seat(run, events.emit) as make_way:

            def check() -> None:
                stop.check()
                make_way()

            training = Training(run, directory, events.emit, check)
            stop.defer()
            events.emit("done", **training.run())
        return DONE
    except Stopped:
        with suppress(Stopped):
            events.emit("stopped")
        return STOPPED
    except CarillonError as error:
        failure = error
    except Exception as error:
        logger.exception("training broke")
        failure = breakage("training", error)
    with suppress(Stopped):
        events.emit("error", code=failure.code, message=failure.message, retryable=failure.retryable)
    return FAILED


def main() -> int:
    stop = StopSignal()
    stop.install()
    logging.basicConfig(level=logging.WARNING)
    return run_training(Path(sys.argv[1]), Events.on_standard_output(), stop)


if __name__ == "__main__":
    sys.exit(main())
