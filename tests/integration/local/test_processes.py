"""How `carillon up` detects whether a tasks process is alive, with a real Valkey that goes away."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from redis.asyncio import Redis

from app.local.processes import beats
from app.platform.broker import heartbeat_key
from tests.support.valkey import running_valkey

pytestmark = pytest.mark.anyio

PID, OTHER = 4711, 4712


async def test_a_broker_that_is_away_is_no_verdict_on_a_process_that_was_ready(tmp_path: Path) -> None:
    mark = heartbeat_key(f"{socket.gethostname()}-{PID}")
    with running_valkey(tmp_path) as url:
        ready = beats(url)
        assert not await ready(PID)
        async with Redis.from_url(url) as redis:
            await redis.set(mark, 1)
            assert await ready(PID)
            await redis.delete(mark)
            assert not await ready(PID), "a broker that is there and has no mark is a verdict"
    assert await ready(PID)
    assert not await ready(OTHER), "at its start, a process without a broker is not ready"
