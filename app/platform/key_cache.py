"""A cache of authenticated keys: a request costs a query only where its key was not seen lately.

A key that is revoked through this process ends here at once, through another one, or in the database, within
`MAX_AGE_S`. Wrong tokens are not kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import datetime
from time import monotonic

from app.errors import AuthenticationFailed
from app.platform.api_key_store import ApiKeyStore
from app.platform.api_keys import ApiKey
from app.platform.database import utc_now

MAX_AGE_S = 2.0
MAX_KEYS = 10_000


class KeyCache:
    """`clock` gives seconds, `now` aware datetimes."""

    def __init__(
        self, keys: ApiKeyStore, *, clock: Callable[[], float] = monotonic, now: Callable[[], datetime] = utc_now
    ) -> None:
        self._keys = keys
        self._clock = clock
        self._now = now
        self._proved: dict[bytes, tuple[ApiKey, float]] = {}
        self._holding: dict[str, float] = {}
        """Ids of keys that hold, and when that was looked up."""

    async def authenticate(self, token: str) -> ApiKey:
        """The key that `token` proves. Raises AuthenticationFailed, StoreUnavailable."""
        name = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        key, at = self._proved.get(name, (None, 0.0))
        if key is not None and self._is_fresh(at) and (key.expires_at is None or key.expires_at > self._now()):
            return key
        key = await self._keys.authenticate(token)
        if len(self._proved) >= MAX_KEYS:
            self._proved.clear()
        self._proved[name] = key, self._clock()
        return key

    async def check(self, key_id: str) -> None:
        """Raises AuthenticationFailed for a key that was revoked or has expired since it was proved."""
        if self._is_fresh(self._holding.get(key_id, float("-inf"))):
            return
        if await self._keys.ended([key_id]):
            self.forget(key_id)
            raise key_ended(key_id)
        if len(self._holding) >= MAX_KEYS:
            self._holding.clear()
        self._holding[key_id] = self._clock()

    def forget(self, key_id: str) -> None:
        """Look the key up again at its next use."""
        self._holding.pop(key_id, None)
        self._proved = {name: (key, at) for name, (key, at) in self._proved.items() if key.id != key_id}

    def _is_fresh(self, at: float) -> bool:
        return self._clock() - at < MAX_AGE_S


def key_ended(key_id: str) -> AuthenticationFailed:
    """What is said to a connection whose key holds no longer."""
    return AuthenticationFailed(f"the API key {key_id} was revoked or has expired; connect again with another")
