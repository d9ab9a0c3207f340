"""One attempt at claimed work: however it ends, the claim is released and the outcome recorded.

It knows neither the row nor the work: a subclass does the work and records the outcome.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import traceback
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from app.errors import CarillonError, JobLost, NotFound, StageFailed
from app.platform.jobs import Cancelled, JobError
from app.platform.retry import retry_store

Ended = TypeVar("Ended")

log = logging.getLogger(__name__)


class ClaimedRun(ABC, Generic[Ended]):
    """One attempt. Each method raises JobLost when the claim is lost, NotFound when the row was deleted."""

    noun: ClassVar[str]
    """The work's name in errors."""

    confidential: ClassVar[bool] = False
    """Whether errors' messages may hold what a user wrote, and stay out of the log."""

    def __init__(self, directory: Path, facts: Mapping[str, Any], *, is_last: bool) -> None:
        """`directory` is the attempt's own, and goes with it; `facts` say in the log whose it is; no attempt follows
        the one that `is_last`."""
        self.directory = directory
        self.facts = facts
        self.is_last = is_last

    @abstractmethod
    async def renew(self) -> bool:
        """Keep the claim; returns whether the work was asked to stop."""

    @abstractmethod
    async def attempt(self) -> Ended:
        """Do the work under its claim, and end it."""

    @abstractmethod
    async def cancel(self) -> Ended:
        """End what was asked to stop."""

    @abstractmethod
    async def give_back(self, *, failure: bool = False) -> None:
        """Leave the work to the next attempt; `failure` when this one failed rather than yielded."""

    @abstractmethod
    async def fail(self, error: JobError) -> Ended:
        """End the work as failed for good."""

    async def to_the_end(self) -> Ended | None:
        """Do what is left to do. Returns what has ended, None when another attempt goes on with it."""
        try:
            return await self._ended()
        except (JobLost, NotFound):
            log.warning("claim lost", extra=self.facts)
            return None
        finally:
            await asyncio.to_thread(shutil.rmtree, self.directory, ignore_errors=True)

    async def _ended(self) -> Ended | None:
        try:
            return await self.attempt()
        except JobLost:
            raise
        except Cancelled:
            return await self.cancel()
        except asyncio.CancelledError:
            # This process is shutting down: the next one need not wait for the claim to lapse.
            await asyncio.shield(self.give_back())
            raise
        except CarillonError as error:
            return await self._failed(error)
        except OSError as error:
            return await self._failed(StageFailed(f"this machine cannot go on with the {self.noun}: {error}"))
        except Exception as error:
            # Its message may hold what a user wrote; the frames do not.
            frames = "".join(traceback.format_tb(error.__traceback__))
            log.error("attempt broke", extra={**self.facts, "error": type(error).__name__, "frames": frames})
            return await self._failed(_unforeseen(error, self.noun))

    async def _failed(self, error: CarillonError) -> Ended | None:
        """End the work, or leave it to the next attempt if the failure may pass and there is one."""
        logged: dict[str, Any] = {
            "extra": {**self.facts, "code": error.code},
            "exc_info": None if self.confidential else error,
        }
        if await retry_store(self.renew):
            return await self.cancel()  # what failed may be what was deleted
        if self.is_last or not _may_pass(error):
            log.warning("attempt failed", **logged)
            return await self.fail(JobError.of(error))
        log.warning("attempt given back", **logged)
        await self.give_back(failure=True)
        return None


def _unforeseen(error: Exception, noun: str) -> StageFailed:
    """An unexpected exception as the end of one attempt: the next need not meet it, so it is retryable.

    It says the error's kind and place, and not its message, which may hold what a user wrote.
    """
    frame = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{Path(frame.filename).name}:{frame.lineno}"
    return StageFailed(f"the {noun} broke with {type(error).__name__} at {place}; the tasks' log says more")


def _may_pass(error: CarillonError) -> bool:
    """Whether another attempt may succeed: the error is retryable or unexpected."""
    return error.retryable or error.code == CarillonError.code
