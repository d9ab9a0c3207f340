"""Work under a claim: it is renewed while work goes on, and whoever has lost it, or was asked to stop, stops.

It knows neither the rows that are claimed nor the work.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Self, TypeVar

from app.errors import CarillonError, JobLost, StageFailed, StoreUnavailable
from app.speech.voices import Frozen

RENEWAL_S = 2.0
"""How soon a cancel is noticed; the claim itself would last much longer."""

_Result = TypeVar("_Result")


class Cancelled(Exception):
    """The work was asked to stop."""


async def under_claim(renew: Callable[[], Awaitable[bool]], work: Coroutine[Any, Any, _Result]) -> _Result:
    """The result of `work`. `renew` keeps the claim, says whether to stop, and raises JobLost.

    Raises the one thing that ended the work: of several at once Cancelled or JobLost, which say what to do.
    """
    try:
        async with asyncio.TaskGroup() as group:
            keeper = group.create_task(_keep(renew))
            result = await group.create_task(work)
            keeper.cancel()
        return result
    except BaseExceptionGroup as group:
        raise _telling(group) from None


async def _keep(renew: Callable[[], Awaitable[bool]]) -> None:
    while True:
        with suppress(StoreUnavailable):  # a claim outlives a short absence of the database
            if await renew():
                raise Cancelled
        await asyncio.sleep(RENEWAL_S)


async def patiently(work: Callable[[], Awaitable[_Result]]) -> _Result:
    """Ask the catalogue, and again while it does not answer, for less time than a claim lasts."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + CLAIM_S / 2
    while True:
        try:
            return await work()
        except StoreUnavailable:
            if loop.time() + RENEWAL_S > deadline:
                raise
            await asyncio.sleep(RENEWAL_S)


def unforeseen(error: Exception, work: str) -> StageFailed:
    """What nobody foresaw, as the end of one attempt: the next need not meet it, so it is retryable.

    It tells the error's kind and place, and not its message, which may hold what a user wrote.
    """
    frame = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{Path(frame.filename).name}:{frame.lineno}"
    return StageFailed(f"the {work} broke with {type(error).__name__} at {place}; the tasks' log says more")


def may_pass(error: CarillonError) -> bool:
    """Whether another attempt may fare better: the error says so, or is one of those that nobody foresaw."""
    return error.retryable or error.code == CarillonError.code


def _telling(group: BaseExceptionGroup[BaseException]) -> BaseException:
    flat = list(_flat(group))
    return next((error for kind in (JobLost, Cancelled) for error in flat if isinstance(error, kind)), flat[0])


def _flat(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _flat(inner)
    else:
        yield error


class JobError(Frozen):
    """Why a job failed."""

    code: str
    message: str
    retryable: bool = False

    @classmethod
    def of(cls, error: CarillonError) -> Self:
        return cls(code=error.code, message=error.message, retryable=error.retryable)


CLAIM_S = 60.0
"""How long a job is its worker's without a renewal; above the broker's reconnection, below a person's patience."""
