"""What tests with a real Redis are given: empty, and the registry in it. And the one real engine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest
from redis.asyncio import Redis

from app.fleet.registry import Registry, open_redis
from app.platform.settings import Settings

if TYPE_CHECKING:
    from tests.support.engines import SharedEngine
    from workers.vllm_engine import VllmEngine


@pytest.fixture
async def redis(settings: Settings) -> AsyncIterator[Redis]:
    redis = open_redis(settings)
    await redis.flushdb()
    yield redis
    await redis.aclose()


@pytest.fixture
def registry(redis: Redis, settings: Settings) -> Registry:
    return Registry(redis, settings)


@pytest.fixture(scope="session")
async def shared_engine() -> AsyncIterator[SharedEngine]:
    from tests.support.engines import SharedEngine

    shared = SharedEngine()
    yield shared
    await shared.aclose()


@pytest.fixture
async def engine(shared_engine: SharedEngine) -> VllmEngine:
    """The session's engine, alive."""
    return await shared_engine.living()
