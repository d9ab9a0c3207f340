"""A task longer than the visibility timeout, in real Celery workers on a real Valkey.

Two processes with the lease share one database; one without it has another, to show what the lease is for.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import pytest
from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from tests.support.processes import until_async
from tests.support.slow_task import make

pytestmark = pytest.mark.anyio


@contextmanager
def tasks_process(url: str, kind: str) -> Iterator[subprocess.Popen[bytes]]:
    """A Celery worker and its pool, in a process group that is killed at the end."""
    command = [sys.executable, "-m", "tests.support.slow_task", url, kind]
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def database(valkey: str, number: int) -> str:
    url = valkey.rpartition("/")[0] + f"/{number}"
    with Redis.from_url(url) as redis:
        redis.flushdb()
    return url


@pytest.fixture(scope="module")
def leased_url(valkey: str) -> Iterator[str]:
    url = database(valkey, 8)
    with tasks_process(url, "leased"), tasks_process(url, "leased"):
        yield url


@pytest.fixture(scope="module")
def bare_url(valkey: str) -> Iterator[str]:
    url = database(valkey, 9)
    with tasks_process(url, "bare"):
        yield url


@pytest.fixture
async def leased(leased_url: str) -> AsyncIterator[AsyncRedis]:
    async with AsyncRedis.from_url(leased_url) as redis:
        yield redis


@pytest.fixture
async def bare(bare_url: str) -> AsyncIterator[AsyncRedis]:
    async with AsyncRedis.from_url(bare_url) as redis:
        yield redis


@pytest.mark.slow
async def test_a_task_longer_than_the_visibility_timeout_runs_once_with_the_lease_and_again_without(
    leased: AsyncRedis, bare: AsyncRedis, leased_url: str, bare_url: str
) -> None:
    make(leased_url, leased=False).send_task("slow", [leased_url, "long"])
    await until_async(lambda: reached(leased, "long starts", 1))
    make(bare_url, leased=False).send_task("slow", [bare_url, "long"])
    await until_async(lambda: reached(bare, "long starts", 2))  # begun later, it has outlasted the timeout already
    await leased.rpush("long is over", 1)
    await until_async(lambda: reached(leased, "long ends", 1))
    await until_async(lambda: acknowledged(leased))
    assert await leased.llen("long starts") == 1


async def test_the_task_of_a_killed_process_runs_again_in_another(leased: AsyncRedis, leased_url: str) -> None:
    make(leased_url, leased=True).send_task("slow", [leased_url, "killed"])
    await until_async(lambda: reached(leased, "killed starts", 1))
    first = int(await leased.lindex("killed starts", 0) or 0)
    os.killpg(first, signal.SIGKILL)
    await until_async(lambda: reached(leased, "killed starts", 2))
    assert int(await leased.lindex("killed starts", 1) or 0) not in (0, first)


async def reached(redis: AsyncRedis, key: str, length: int) -> bool:
    return await redis.llen(key) >= length


async def acknowledged(redis: AsyncRedis) -> bool:
    return await redis.hlen("unacked") == 0
