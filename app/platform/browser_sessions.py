"""Browser sign-in: single-use invitations and sessions, in Redis.

    carillon:invitation:<hash>  for INVITATION_S, or until it is used
    carillon:browser:<hash>     for SESSION_S after its last use

Redis holds an API key for each, encrypted under the secret that the browser has: neither side alone knows the key. It
does not know cookies, nor whether the key still holds.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Awaitable
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.errors import DeadlineExceeded

INVITATION_S = 15 * 60
"""Long enough to copy from the terminal; a link that leaks later is used or expired."""

SESSION_S = 7 * 24 * 3600

CALL_TIMEOUT_S = 5.0


class BrowserSessions:
    """Every method raises DeadlineExceeded when Redis is away."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def invite(self, api_key: str) -> str:
        """A secret with which one browser can sign in as the holder of `api_key`."""
        return await self._keep("invitation", api_key, INVITATION_S)

    async def accept(self, invitation: str) -> str | None:
        """The API key of an invitation, which this uses up; None for one that is used or expired, or is none."""
        return _opened(invitation, await _answer(self._redis.getdel(_name("invitation", invitation))))

    async def open(self, api_key: str) -> str:
        """Begin a session. The secret returned is the browser's."""
        return await self._keep("browser", api_key, SESSION_S)

    async def key_of(self, secret: str) -> str | None:
        """The API key of a session, which lives on for SESSION_S; None where there is no such session."""
        return _opened(secret, await _answer(self._redis.getex(_name("browser", secret), ex=SESSION_S)))

    async def close(self, secret: str) -> None:
        """End a session, if there is one."""
        await _answer(self._redis.delete(_name("browser", secret)))

    async def _keep(self, kind: str, api_key: str, ttl_s: int) -> str:
        secret = secrets.token_urlsafe(32)
        await _answer(self._redis.set(_name(kind, secret), _crossed(secret, api_key.encode()), ex=ttl_s))
        return secret


async def _answer(call: Awaitable[Any]) -> Any:
    try:
        async with asyncio.timeout(CALL_TIMEOUT_S):
            return await call
    except (RedisError, TimeoutError) as error:
        raise DeadlineExceeded(
            f"sign-ins cannot be looked up ({type(error).__name__}); is the Redis of CARILLON_REDIS_URL running?",
            retry_after_s=1,
        ) from error


def _name(kind: str, secret: str) -> str:
    return f"carillon:{kind}:{hashlib.sha256(secret.encode()).hexdigest()}"


def _opened(secret: str, kept: bytes | None) -> str | None:
    return None if kept is None else _crossed(secret, kept).decode("ascii", "replace")


def _crossed(secret: str, data: bytes) -> bytes:
    """`data` under a one-time pad that follows from the secret, of 256 bits and used for one value; its own inverse.

    Tampering with what Redis holds yields an invalid key.
    """
    pad = hashlib.shake_256(b"carillon: browser session " + secret.encode()).digest(len(data))
    return bytes(a ^ b for a, b in zip(data, pad, strict=True))
