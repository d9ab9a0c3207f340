"""Concurrent sessions of a project or key, over all front doors; the script documents the keys.

A session that is not renewed, because its front door died, counts no longer after `TTL_S`.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.errors import Overloaded, RateLimited

TTL_S = 15.0
RETRY_AFTER_S = 2.0
RETRY_S, SLOW_RETRY_S = 0.05, 0.4
"""Pauses between attempts, first and last: many waiters of one owner must not keep Redis busy."""

CALL_TIMEOUT_S = 1.0
PREFIX = "carillon:limits:sessions:"

log = logging.getLogger(__name__)


class SessionCounts:
    """Counts limited sessions; unlimited ones cost no call."""

    def __init__(self, redis: Redis, *, open_when_away: bool) -> None:
        self._script = redis.register_script(files("app.platform").joinpath("session_counts.lua").read_text("utf-8"))
        self._open_when_away = open_when_away

    @asynccontextmanager
    async def counted(self, limits: Mapping[str, int | None], *, patience_s: float) -> AsyncIterator[None]:
        """A session that counts for each of `limits`, by the ids of owners, while the context is open.

        Raises RateLimited where one of them has no room for `patience_s`, Overloaded where Redis is unavailable and the
        limits fail closed.
        """
        limited = {owner: limit for owner, limit in limits.items() if limit is not None}
        if not limited:
            yield
            return
        session = uuid.uuid4().hex
        clock = asyncio.get_running_loop().time
        give_up_at = clock() + patience_s
        retry_s = RETRY_S
        while (full := await self._called("open", limited, session)) and (left_s := give_up_at - clock()) > 0:
            await asyncio.sleep(min(retry_s, left_s))  # one that is over may be about to be closed
            retry_s = min(2 * retry_s, SLOW_RETRY_S)
        if full:
            owner = list(limited)[full - 1]
            raise RateLimited(
                f"{owner} has {limited[owner]} sessions open, the most it may have; end one, or try again",
                retry_after_s=RETRY_AFTER_S,
            )
        renewing = asyncio.create_task(self._renew(limited, session), name="session count")
        try:
            yield
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)
            await self._called("close", limited, session)

    async def _renew(self, limited: Mapping[str, int], session: str) -> None:
        while True:
            await asyncio.sleep(TTL_S / 3)
            await self._called("renew", limited, session)

    async def _called(self, operation: str, limited: Mapping[str, int], session: str) -> int:
        keys = [f"{PREFIX}{owner}" for owner in limited]
        arguments: list[Any] = [operation, round(TTL_S * 1000), session, *limited.values()]
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                return int(await self._script(keys=keys, args=arguments))
        except (RedisError, OSError, TimeoutError) as error:
            log.warning("sessions not counted", extra={"error": type(error).__name__})
            if operation == "open" and not self._open_when_away:
                raise Overloaded("sessions cannot be counted, for Redis is away; try again", retry_after_s=1) from error
            return 0
