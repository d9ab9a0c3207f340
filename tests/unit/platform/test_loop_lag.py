"""The event loop's lag, as it is observed."""

from __future__ import annotations

import asyncio
import time

import pytest

from app.platform.loop_lag import loop_lag
from tests.support.deadlines import HANG_S

pytestmark = pytest.mark.anyio


async def test_what_blocks_the_loop_is_seen_as_its_lag() -> None:
    observed: list[float] = []
    async with asyncio.timeout(HANG_S), loop_lag(observed.append, interval_s=0.01):
        while not observed:
            await asyncio.sleep(0)
        time.sleep(0.1)
        seen = len(observed)
        while len(observed) == seen:
            await asyncio.sleep(0)
    assert max(observed) > 0.05


async def test_nothing_is_observed_after_the_context() -> None:
    observed: list[float] = []
    async with loop_lag(observed.append, interval_s=0.001):
        pass
    seen = len(observed)
    await asyncio.sleep(0.01)
    assert len(observed) == seen
