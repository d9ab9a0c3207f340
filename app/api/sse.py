"""Server-sent events about a job: itself whenever it has changed, until it is over.

Progress is read from the catalogue, so that any front door can tell it; nothing here knows what kind of job it is.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol, TypeVar

from fastapi import Response
from fastapi.responses import StreamingResponse

POLL_S = 0.5
KEEPALIVE_S = 15.0


class JobState(Protocol):
    @property
    def value(self) -> str: ...

    @property
    def over(self) -> bool: ...


class Job(Protocol):
    @property
    def revision(self) -> int: ...

    @property
    def state(self) -> JobState: ...


AJob = TypeVar("AJob", bound=Job)


def event_stream(
    job: AJob, *, again: Callable[[], Awaitable[AJob]], shown: Callable[[AJob, AJob | None], dict[str, Any]]
) -> Response:
    """`again` reads the job anew; `shown` tells it, knowing what was told last: nothing large need be told twice."""
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(_changes(job, again, shown), media_type="text/event-stream", headers=headers)


async def _changes(
    job: AJob, again: Callable[[], Awaitable[AJob]], shown: Callable[[AJob, AJob | None], dict[str, Any]]
) -> AsyncIterator[str]:
    clock = asyncio.get_running_loop().time
    told, quiet_since = None, clock()
    while True:
        yield f"id: {job.revision}\nevent: {job.state.value}\ndata: {json.dumps(shown(job, told))}\n\n"
        if job.state.over:
            return
        told = job
        while (job := await again()).revision == told.revision:
            await asyncio.sleep(POLL_S)
            if clock() - quiet_since > KEEPALIVE_S:
                quiet_since = clock()
                yield ": still here\n\n"
        quiet_since = clock()
