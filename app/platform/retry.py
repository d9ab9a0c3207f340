"""Retries while a store is unavailable, by tenacity: one policy for coroutines, one for blocking calls.

It knows StoreUnavailable and no store. How a client waits for a front door is in `app.client.connection`, and how a
narration waits for a place at a worker in `app.realtime.background`: both go on for as long as there is a sign of life.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_before_delay,
    wait_exponential,
    wait_fixed,
)

from app.errors import StoreUnavailable

PAUSE_S, PATIENCE_S = 2.0, 30.0
"""Of a run under a claim: half of what the claim lasts without a renewal, so that it is still the run's own."""

MAX_PAUSE_S = 4.0

_Result = TypeVar("_Result")

log = logging.getLogger(__name__)


async def retry_store(
    work: Callable[[], Awaitable[_Result]], *, pause_s: float = PAUSE_S, patience_s: float = PATIENCE_S
) -> _Result:
    """`work`, tried every `pause_s` while the store is away, for at most `patience_s`; its last StoreUnavailable."""

    async def attempt() -> _Result:  # tenacity awaits a coroutine function only, not what a lambda gives
        return await work()

    return await AsyncRetrying(wait=wait_fixed(pause_s), **_while_away(patience_s))(attempt)


def retry_store_blocking(
    work: Callable[[], _Result], *, patience_s: float, sleep: Callable[[float], None] = time.sleep
) -> _Result:
    """The same for a blocking call, with pauses that grow from half a second to MAX_PAUSE_S."""
    wait = wait_exponential(multiplier=0.5, max=MAX_PAUSE_S)
    return Retrying(wait=wait, sleep=sleep, before_sleep=_log, **_while_away(patience_s))(work)


def _while_away(patience_s: float) -> dict[str, Any]:
    return {
        "retry": retry_if_exception_type(StoreUnavailable),
        "stop": stop_before_delay(patience_s),
        "reraise": True,
    }


def _log(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    log.warning("store away", extra={"failures": state.attempt_number, "error": str(error)})
