"""Rate limits: requests and characters in a sliding minute, counted in Redis for all front doors (library `limits`).

Keys are `LIMITS/…` of that library, below `carillon:limits`. What is limited to nothing costs no call. Where Redis is
unavailable, it fails open or closed, as configured.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal

from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.errors import Overloaded, RateLimited

CALL_TIMEOUT_S = 1.0
PREFIX = "carillon:limits"

log = logging.getLogger(__name__)

Counted = Literal["requests", "characters"]


@dataclass(frozen=True, slots=True)
class Allowance:
    """What remains of a limit, and the seconds until its window resets."""

    counted: Counted
    limit: int
    remaining: int
    reset_s: float


ALLOWANCES: ContextVar[dict[Counted, Allowance] | None] = ContextVar("allowances", default=None)
"""Of the request that this task answers: the tightest of each kind. `app.api.rate_headers` sets one for each."""


class RateLimiter:
    """Counts for projects and keys. `open_when_away`: whether what cannot be counted passes."""

    def __init__(self, redis: Redis, *, open_when_away: bool) -> None:
        self._redis = redis
        self._open_when_away = open_when_away
        self._strategy: Any = None

    async def count(self, counted: Counted, amount: int, owners: Mapping[str, int | None]) -> None:
        """Count `amount` for each of `owners` (ids) that has a limit a minute, and tell ALLOWANCES what is left.

        Raises RateLimited where a limit is reached, Overloaded where Redis is unavailable and the limits fail closed.
        """
        limited = [(owner, limit) for owner, limit in owners.items() if limit is not None]
        if not limited:
            return
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                for owner, limit in limited:
                    await self._hit(counted, amount, owner, limit)
        except (RedisError, OSError, TimeoutError) as error:
            log.warning("limits not counted", extra={"error": type(error).__name__})
            if self._open_when_away:
                return
            raise Overloaded("limits cannot be counted, for Redis is away; try again", retry_after_s=1) from error

    async def _hit(self, counted: Counted, amount: int, owner: str, limit: int) -> None:
        from limits import RateLimitItemPerMinute

        strategy, item = self._opened(), RateLimitItemPerMinute(limit)
        # More than a whole minute's could never pass: it takes the whole of an empty minute.
        cost = min(amount, limit)
        passed = await strategy.hit(item, owner, counted, cost=cost)
        window = await strategy.get_window_stats(item, owner, counted)
        reset_s = max(0.0, window.reset_time - time.time())
        allowance = Allowance(counted, limit, window.remaining, reset_s)
        told = ALLOWANCES.get()
        if told is not None and (counted not in told or allowance.remaining < told[counted].remaining):
            told[counted] = allowance
        if passed:
            return
        retry_after_s = min(60.0, max(1.0, reset_s, 60 * (cost - window.remaining) / limit))
        raise RateLimited(
            f"{owner} has {limit} {counted} a minute, and {window.remaining} are left; try again in "
            f"{retry_after_s:.0f} s",
            retry_after_s=retry_after_s,
        )

    def _opened(self) -> Any:
        if self._strategy is None:
            from limits.aio.storage import RedisStorage
            from limits.aio.strategies import SlidingWindowCounterRateLimiter

            pool: Any = self._redis.connection_pool
            storage = RedisStorage("async+redis://", implementation="redispy", key_prefix=PREFIX, connection_pool=pool)
            self._strategy = SlidingWindowCounterRateLimiter(storage)
        return self._strategy
