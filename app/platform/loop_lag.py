"""Event loop lag: what blocks the loop delays every session alike."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

INTERVAL_S = 0.25

LAG_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)


@asynccontextmanager
async def loop_lag(observe: Callable[[float], None], *, interval_s: float = INTERVAL_S) -> AsyncIterator[None]:
    """While the context lasts, `observe` gets the seconds by which each sleep of `interval_s` was too long."""
    watching = asyncio.create_task(_watch(observe, interval_s), name="loop lag")
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def _watch(observe: Callable[[float], None], interval_s: float) -> None:
    clock = asyncio.get_running_loop().time
    while True:
        due = clock() + interval_s
        await asyncio.sleep(interval_s)
        observe(max(0.0, clock() - due))
