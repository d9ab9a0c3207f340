"""Work under a claim: the claim is renewed while work goes on; a run that lost it, or was asked to stop, stops.

It knows neither the rows that are claimed nor the work. What a whole attempt does with its end is in `claimed_run`,
the claim's SQL in `claims`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from typing import Any, Self, TypeVar

from app.errors import CarillonError, JobLost, StoreUnavailable
from app.platform.cancellation import to_the_end
from app.speech.voices import Frozen

CLAIM_S = 60.0
"""How long a job is its worker's without a renewal; above the broker's reconnection, below a person's patience."""

RENEWAL_S = 2.0
"""How soon a cancel is noticed; the claim itself would last much longer."""

_Result = TypeVar("_Result")


class JobError(Frozen):
    """Why a job failed."""

    code: str
    message: str
    retryable: bool = False

    @classmethod
    def of(cls, error: CarillonError) -> Self:
        return cls(code=error.code, message=error.message, retryable=error.retryable)


class Cancelled(Exception):
    """The work was asked to stop."""


async def under_claim(renew: Callable[[], Coroutine[Any, Any, bool]], work: Coroutine[Any, Any, _Result]) -> _Result:
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
        raise _decisive(group) from None


async def _keep(renew: Callable[[], Coroutine[Any, Any, bool]]) -> None:
    while True:
        with suppress(StoreUnavailable):  # a claim outlives a short absence of the database
            if await to_the_end(renew()):  # a transaction cut in half may hold the database's lock
                raise Cancelled
        await asyncio.sleep(RENEWAL_S)


def _decisive(group: BaseExceptionGroup[BaseException]) -> BaseException:
    flat = list(_flat(group))
    return next((error for kind in (JobLost, Cancelled) for error in flat if isinstance(error, kind)), flat[0])


def _flat(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _flat(inner)
    else:
        yield error
