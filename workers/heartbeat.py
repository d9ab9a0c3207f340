"""What a worker reports of itself to the fleet, for as long as it lives.

Each beat renews the worker's record and the leases of the sessions it speaks with, and brings back which voices have
been deleted, and whether the worker is to drain. A registry that does not answer stops nothing: sessions play on, and
the next beat that arrives brings the worker back, with its leases where they are lost.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from app.errors import ConfigurationError, DeadlineExceeded
from app.fleet.registry import HeartbeatReply, LeaseRecord, Registry
from app.fleet.worker import Worker

log = logging.getLogger(__name__)


class Heartbeat:
    """Beats every `interval_s`, and at once when notified of a change."""

    def __init__(
        self,
        registry: Registry,
        describe: Callable[[], Worker],
        leases: Callable[[], Iterable[LeaseRecord]],
        retire: Callable[[str], None],
        *,
        interval_s: float,
        drain: Callable[[float], None] = lambda deadline_s: None,
    ) -> None:
        """`retire` is called with the id of each voice that was deleted, and `drain` with how long sessions may go on,
        at each beat while the worker is to drain; both must return at once.
        """
        self._registry = registry
        self._describe = describe
        self._leases = leases
        self._retire = retire
        self._drain = drain
        self._retired_until = 0
        self._unknown: tuple[str, ...] = ()
        """Sessions that the registry did not know at the last beat. A session that speaks on was not released: what the
        registry has lost is brought back with this beat."""
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
                reply = await self._registry.beat(
                    self._describe(), list(self._leases()), retired_since=self._retired_until, again=self._unknown
                )
            except DeadlineExceeded as error:
                log.warning("heartbeat failed", extra={"error": error.message})
            else:
                if reply is None:
                    raise ConfigurationError(
                        f"another worker has started as {self._describe().id!r}; give each its own CARILLON_WORKER_ID"
                    )
                self._apply(reply)
            try:
                async with asyncio.timeout(self._interval_s):
                    await self._changed.wait()
            except TimeoutError:
                pass

    def _apply(self, reply: HeartbeatReply) -> None:
        self._unknown = reply.unknown
        self._retired_until = reply.retired_until
        for voice_id in reply.retired:
            self._retire(voice_id)
        if reply.drain_s is not None:
            self._drain(reply.drain_s)
