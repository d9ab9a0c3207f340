"""What a worker does between its start and its first session: it loads the voices that it will be requested for.

The registry knows which voices were requested lately, and the ring which of them are this worker's. What fails here is
loaded later, at the cost of its first listener's wait: it keeps no worker from serving.
"""

from __future__ import annotations

import asyncio
import logging

from app.errors import CarillonError, DeadlineExceeded
from app.fleet.placement import share_of
from app.fleet.registry import Registry
from app.fleet.worker import Worker
from app.speech.voices import AdapterVersion
from workers.adapters import AdapterCache

log = logging.getLogger(__name__)


async def warm_up(worker: Worker, registry: Registry, adapters: AdapterCache, *, most: int, timeout_s: float) -> int:
    """Load the worker's share of what is in demand, the most demanded first: at most so many voices, for at most so
    long.

    Returns how many were loaded. One that cannot be is left out.
    """
    loaded = 0
    try:
        async with asyncio.timeout(timeout_s):
            share = share_of(worker, await registry.snapshot(), await registry.most_demanded(worker.model.name))
            for version in share[:most]:
                loaded += await _load(version, adapters)
    except TimeoutError:
        log.warning("warm-up broken off", extra={"after_s": timeout_s})
    except DeadlineExceeded as error:
        log.warning("warm-up left out", extra={"error": error.message})
    log.info("warmed up", extra={"voices": loaded})
    return loaded


async def _load(version: AdapterVersion, adapters: AdapterCache) -> bool:
    try:
        async with adapters.use(version):
            return True
    except CarillonError as error:
        log.warning("voice not warmed", extra={"adapter": version.name, "error": error.message})
        return False
