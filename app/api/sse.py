"""Server-sent events of a job: its state whenever it has changed, until it is over.

Progress is read from the catalogue, so that any front door can send it: once for all listeners of the same job here,
with a growing interval while nothing happens. A stream is closed when its key ends. Nothing here knows what kind of job
it is.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Generic, Protocol, TypeVar

from fastapi import Response
from fastapi.responses import StreamingResponse

POLL_S, MAX_POLL_S = 0.5, 2.0
POLL_GROWTH = 1.2
KEEPALIVE_S = 15.0


class JobState(Protocol):
    @property
    def value(self) -> str: ...

    @property
    def over(self) -> bool: ...


class Job(Protocol):
    @property
    def id(self) -> str: ...

    @property
    def revision(self) -> int: ...

    @property
    def state(self) -> JobState: ...


AJob = TypeVar("AJob", bound=Job)
Held = Callable[[Callable[[], None]], AbstractContextManager[None]]
"""Of a listener: what is handed over is called when its key ends, while the context is open."""


class JobWatches:
    """The jobs that have listeners, each read by one task."""

    def __init__(self) -> None:
        self._watches: dict[str, _Watch[Any]] = {}

    def __len__(self) -> int:
        return len(self._watches)

    def stream(
        self,
        job: AJob,
        *,
        reload: Callable[[], Awaitable[AJob]],
        render: Callable[[AJob, AJob | None], dict[str, Any]],
        held: Held,
    ) -> Response:
        """`reload` reads the job again; `render` makes its JSON, given what was sent last."""
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        changes = self._changes(job, reload, render, held)
        return StreamingResponse(changes, media_type="text/event-stream", headers=headers)

    async def _changes(
        self,
        job: AJob,
        reload: Callable[[], Awaitable[AJob]],
        render: Callable[[AJob, AJob | None], dict[str, Any]],
        held: Held,
    ) -> AsyncIterator[str]:
        sent: AJob | None = None
        ended = asyncio.Event()
        with self._watched(job, reload) as watch, held(lambda: watch.end(ended)):
            while not ended.is_set():
                yield f"id: {job.revision}\nevent: {job.state.value}\ndata: {json.dumps(render(job, sent))}\n\n"
                if job.state.over:
                    return
                sent = job
                while (changed := await watch.after(sent.revision, ended)) is None:
                    if ended.is_set():
                        return
                    yield ": still here\n\n"
                job = changed

    @contextmanager
    def _watched(self, job: AJob, reload: Callable[[], Awaitable[AJob]]) -> Iterator[_Watch[AJob]]:
        watch = self._watches.get(job.id)
        if watch is None or watch.failed:
            watch = self._watches[job.id] = _Watch(job, reload)
        watch.listeners += 1
        try:
            yield watch
        finally:
            watch.listeners -= 1
            if not watch.listeners:
                watch.close()
                if self._watches.get(job.id) is watch:
                    del self._watches[job.id]


class _Watch(Generic[AJob]):
    """One job as it was last read, and the task that reads it."""

    def __init__(self, job: AJob, reload: Callable[[], Awaitable[AJob]]) -> None:
        self.listeners = 0
        self._job = job
        self._reload = reload
        self._failure: Exception | None = None
        self._changed = asyncio.Event()
        self._reading = asyncio.create_task(self._read(), name=f"watch of {job.id}")

    @property
    def failed(self) -> bool:
        return self._failure is not None

    async def after(self, revision: int, ended: asyncio.Event) -> AJob | None:
        """The job when it has another revision; None if it has none for KEEPALIVE_S, or `end` was called.

        Raises what reading it did.
        """
        try:
            async with asyncio.timeout(KEEPALIVE_S):
                while self._job.revision <= revision and self._failure is None:
                    if ended.is_set():
                        return None
                    await self._changed.wait()
        except TimeoutError:
            return None
        if self._job.revision <= revision and self._failure is not None:
            raise self._failure
        return self._job

    def end(self, ended: asyncio.Event) -> None:
        """Release this listener as well."""
        ended.set()
        self._notify()

    async def _read(self) -> None:
        pause_s = POLL_S
        while self._failure is None:
            await asyncio.sleep(pause_s)
            try:
                job = await self._reload()
            except Exception as failure:
                self._failure = failure
            else:
                if job.revision <= self._job.revision:
                    pause_s = min(pause_s * POLL_GROWTH, MAX_POLL_S)
                    continue
                self._job, pause_s = job, POLL_S
            self._notify()

    def _notify(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def close(self) -> None:
        self._reading.cancel()
