"""What a worker tells the fleet of itself, and keeps telling while it lives.

Each beat renews the worker's record and the leases of the sessions it speaks with, and brings back which voices have
been deleted. A registry that does not answer
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
        retire: Callable[[str], None],
        *,
        interval_s: float,
    ) -> None:
        """`retire` is called with the id of each voice that was deleted; it must return at once."""
        self._registry = registry
        self._describe = describe
        self._sessions = sessions
        self._retire = retire
        self._retired_until = 0
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
                pulse = await self._registry.beat(
                    self._describe(), list(self._sessions()), retired_since=self._retired_until
                )
            except DeadlineExceeded as error:
                log.warning("heartbeat failed", extra={"error": error.message})
            else:
                if pulse is None:
                    raise ConfigurationError(
                        f"another worker has started as {self._describe().id!r}; give each its own CARILLON_WORKER_ID"
                    )
                for voice_id in pulse.retired:
                    self._retire(voice_id)
                self._retired_until = pulse.retired_until
            try:
                async with asyncio.timeout(self._interval_s):
                    await self._changed.wait()
            except TimeoutError:
                pass
