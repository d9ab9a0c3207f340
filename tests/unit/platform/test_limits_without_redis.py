"""Where Redis is away, what is limited passes or waits outside, as the operator has set; what is not limited passes."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from app.errors import Overloaded
from app.platform.rate_limits import RateLimiter
from app.platform.session_counts import SessionCounts

pytestmark = pytest.mark.anyio

LIMITED, UNLIMITED = {"project a": 1, "key b": None}, {"project a": None}


@pytest.fixture
async def away() -> AsyncIterator[Redis]:
    async with Redis(host="127.0.0.1", port=9) as redis:
        yield redis


async def test_an_open_house_counts_nothing_and_lets_everyone_in(away: Redis) -> None:
    rates, counts = RateLimiter(away, open_when_away=True), SessionCounts(away, open_when_away=True)
    for _ in range(2):
        await rates.count("requests", 1, LIMITED)
    async with counts.counted(LIMITED, patience_s=0), counts.counted(LIMITED, patience_s=0):
        pass


async def test_a_closed_house_says_to_come_again(away: Redis) -> None:
    rates, counts = RateLimiter(away, open_when_away=False), SessionCounts(away, open_when_away=False)
    with pytest.raises(Overloaded, match="Redis is away") as refused:
        await rates.count("characters", 5, LIMITED)
    assert (refused.value.retry_after_s, refused.value.retryable) == (1, True)
    with pytest.raises(Overloaded, match="Redis is away"):
        async with counts.counted(LIMITED, patience_s=0):
            pass


async def test_what_has_no_limit_does_not_ask_for_redis(away: Redis) -> None:
    rates, counts = RateLimiter(away, open_when_away=False), SessionCounts(away, open_when_away=False)
    await rates.count("requests", 1, UNLIMITED)
    async with counts.counted(UNLIMITED, patience_s=0):
        pass
