"""What tests with a real Redis are given: empty, and the registry in it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from app.infra.registry import Registry, open_redis
from app.infra.settings import Settings


@pytest.fixture
async def redis(settings: Settings) -> AsyncIterator[Redis]:
    redis = open_redis(settings)
    await redis.flushdb()
    yield redis
    await redis.aclose()


@pytest.fixture
def registry(redis: Redis, settings: Settings) -> Registry:
    return Registry(redis, settings)
