"""Attempts at claimed work, whatever they meet: the row learns how it ended."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from app.errors import CarillonError, GateFailed, JobLost, NotFound, StoreUnavailable
from app.platform.claimed_run import ClaimedRun
from app.platform.jobs import Cancelled, JobError

pytestmark = pytest.mark.anyio


class Run(ClaimedRun[str]):
    """Work that raises `fault`; `ends` has what the row was told."""

    noun = "job"

    def __init__(self, directory: Path, fault: BaseException, *, is_last: bool = False) -> None:
        super().__init__(directory, {"job": "job-1"}, is_last=is_last)
        directory.mkdir()
        self.fault = fault
        self.asked_to_stop = False
        self.ends: list[str] = []

    async def renew(self) -> bool:
        return self.asked_to_stop

    async def attempt(self) -> str:
        raise self.fault

    async def cancel(self) -> str:
        self.ends.append("cancelled")
        return "cancelled"

    async def give_back(self, *, failure: bool = False) -> None:
        self.ends.append("failure" if failure else "given back")

    async def fail(self, error: JobError) -> str:
        self.ends.append(f"{error.code}: {error.message}")
        return "failed"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "attempt"


@pytest.mark.parametrize(
    ("fault", "ends"),
    [
        (Cancelled(), ["cancelled"]),
        (JobLost("another's"), []),
        (StoreUnavailable("away"), ["failure"]),
        (CarillonError("a defect"), ["failure"]),
        (LookupError("a user's words"), ["failure"]),
        (OSError("no space left"), ["failure"]),
        (GateFailed("too slow"), ["gate_failed: too slow"]),
        (NotFound("no voice"), ["not_found: no voice"]),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_an_attempt_ends_as_what_it_met_says_and_its_directory_goes(
    directory: Path, fault: Exception, ends: list[str]
) -> None:
    run = Run(directory, fault)
    await run.to_the_end()
    assert run.ends == ends
    assert not run.directory.exists()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (OSError("no space left"), "this machine cannot go on with the job: no space left"),
        (LookupError("a user's words"), "the job broke with LookupError at test_claimed_run.py:"),
    ],
)
async def test_a_failure_that_may_pass_ends_the_last_attempt(directory: Path, fault: Exception, message: str) -> None:
    run = Run(directory, fault, is_last=True)
    assert await run.to_the_end() == "failed"
    assert run.ends[0].startswith(f"stage_failed: {message}")


async def test_what_was_asked_to_stop_is_cancelled_whatever_failed(directory: Path) -> None:
    run = Run(directory, GateFailed("too slow"))
    run.asked_to_stop = True
    assert await run.to_the_end() == "cancelled"


async def test_a_process_that_is_told_to_end_gives_the_work_back(directory: Path) -> None:
    run = Run(directory, asyncio.CancelledError())
    with pytest.raises(asyncio.CancelledError):
        await run.to_the_end()
    assert run.ends == ["given back"]


async def test_what_a_user_wrote_stays_out_of_the_log(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    run = Run(directory, LookupError("a user's words"))
    await run.to_the_end()
    assert "attempt broke" in caplog.text
    assert all("a user's words" not in str(record.__dict__) for record in caplog.records)
