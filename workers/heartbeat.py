"""What a worker tells the fleet of itself, and keeps telling while it lives.

Each beat renews the worker's record and the leases of the sessions it speaks with. A registry that does not answer
stops nothing: sessions play on, and the next beat that arrives brings the worker back. Leases that have expired
meanwhile stay so; the worker itself then refuses what would be too much.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from app.core.errors import ConfigurationError, DeadlineExceeded
from app.core.models import Worker
from app.infra.registry import Registry

log = logging.getLogger(__name__)


class Heartbeat:
    """Beats every `interval_s`, and at once when told that something changed."""

    def __init__(
        self,
        registry: Registry,
        describe: Callable[[], Worker],
        sessions: Callable[[], Iterable[str]],
        *,
        interval_s: float,
    ) -> None:
        self._registry = registry
        self._describe = describe
        self._sessions = sessions
        self._interval_s = interval_s
        self._changed = asyncio.Event()

    def hurry(self) -> None:
        """Beat now: the state has changed."""
        self._changed.set()

    async def run(self) -> None:
        """Beat until cancelled. Raises ConfigurationError when a later start has taken this worker's id."""
        while True:
            self._changed.clear()
            try:
                current = await self._registry.beat(self._describe(), list(self._sessions()))
            except DeadlineExceeded as error:
                log.warning("heartbeat failed", extra={"error": error.message})
            else:
                if not current:
                    raise ConfigurationError(
                        f"another worker has started as {self._describe().id!r}; give each its own CARILLON_WORKER_ID"
                    )
            try:
                async with asyncio.timeout(self._interval_s):
                    await self._changed.wait()
            except TimeoutError:
                pass
