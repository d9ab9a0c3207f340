"""A stage as its parent sees it: lines on standard output, an exit code, an end when asked."""

from __future__ import annotations

import errno
import io
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from app.errors import StoreUnavailable
from tests.support.deadlines import HANG_S
from training.run import Stopped
from training.stage import DONE, FAILED, TERMINATED, Events, Tell, Work, run_stage


def outcome(work: Work) -> tuple[int, list[dict[str, Any]]]:
    lines = io.StringIO()
    code = run_stage(work, Path(), Events(lines))
    return code, [json.loads(line) for line in lines.getvalue().splitlines()]


def test_what_the_work_returns_goes_out_with_done() -> None:
    def work(directory: Path, tell: Tell) -> dict[str, Any]:
        tell("progress", clips=1, of=2)
        return {"rank": 16}

    assert outcome(work) == (DONE, [{"event": "progress", "clips": 1, "of": 2}, {"event": "done", "rank": 16}])


def test_an_error_of_ours_keeps_its_code_and_whether_to_try_again() -> None:
    def work(directory: Path, tell: Tell) -> None:
        raise StoreUnavailable("the store is away")

    code, events = outcome(work)
    assert code == FAILED
    assert events == [
        {"event": "error", "code": "store_unavailable", "message": "the store is away", "retryable": True}
    ]


def test_any_other_error_is_reported_as_one_that_trying_again_does_not_mend() -> None:
    def work(directory: Path, tell: Tell) -> None:
        raise ZeroDivisionError("division by zero")

    code, events = outcome(work)
    assert code == FAILED
    assert (events[0]["code"], events[0]["retryable"]) == ("internal_error", False)
    assert "ZeroDivisionError" in events[0]["message"]


def test_a_card_without_memory_may_have_it_the_next_time() -> None:
    def work(directory: Path, tell: Tell) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    code, events = outcome(work)
    assert code == FAILED
    assert (events[0]["code"], events[0]["retryable"]) == ("out_of_memory", True)


def test_a_full_disk_may_have_room_the_next_time() -> None:
    def work(directory: Path, tell: Tell) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    code, events = outcome(work)
    assert code == FAILED
    assert (events[0]["code"], events[0]["retryable"]) == ("stage_failed", True)
    assert "No space left" in events[0]["message"]


def test_a_stage_that_was_stopped_says_nothing_more() -> None:
    def work(directory: Path, tell: Tell) -> None:
        raise Stopped

    assert outcome(work) == (TERMINATED, [])


AWAITING = """
import asyncio, sys
from training.stage import Events, main, run_cancellable

def work(directory, tell):
    async def speak():
        try:
            tell("progress")
            await asyncio.sleep(600)
        finally:
            tell("hung up")
    run_cancellable(speak())

sys.exit(main(work))
"""

BLOCKED = """
import sys, threading
from training.stage import Events, main

def work(directory, tell):
    print("a library's own words")
    tell("progress")
    threading.Event().wait()

sys.exit(main(work))
"""


@pytest.mark.parametrize(("program", "after"), [(AWAITING, ['{"event": "hung up"}']), (BLOCKED, [])])
def test_sigterm_ends_it_with_143(program: str, after: list[str], tmp_path: Path) -> None:
    stage = subprocess.Popen([sys.executable, "-c", program, tmp_path], stdout=subprocess.PIPE, text=True)
    assert stage.stdout is not None
    assert stage.stdout.readline() == '{"event": "progress"}\n'
    stage.send_signal(signal.SIGTERM)
    rest, _ = stage.communicate(timeout=HANG_S)
    assert stage.returncode == TERMINATED
    assert rest.splitlines() == after
