"""The events of a job, as a client hears them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from tests.support.deadlines import HANG_S


class FollowedJob:
    """`heard` are the job's states so far, the newest last."""

    def __init__(self) -> None:
        self.heard: list[dict[str, Any]] = []

    async def until(self, state: str) -> None:
        while not self.heard or self.heard[-1]["state"] != state:
            await asyncio.sleep(0.02)

    async def listen(self, http: httpx.AsyncClient, path: str) -> None:
        async with http.stream("GET", path) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            async for line in answer.aiter_lines():
                if line.startswith("data: "):
                    self.heard.append(json.loads(line.removeprefix("data: ")))


@asynccontextmanager
async def followed(http: httpx.AsyncClient, path: str) -> AsyncIterator[FollowedJob]:
    """Listen to the events at `path`, while the context lasts and then to their end."""
    job = FollowedJob()
    async with asyncio.timeout(HANG_S), asyncio.TaskGroup() as group:
        group.create_task(job.listen(http, path))
        yield job
