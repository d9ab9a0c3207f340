"""Who listens to a job's progress costs the catalogue nothing: one task reads it for all."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import pytest
from fastapi.responses import StreamingResponse

from app.api import sse
from app.api.sse import JobWatches
from app.errors import NotFound

pytestmark = pytest.mark.anyio


@dataclass(frozen=True)
class State:
    value: str = "running"
    over: bool = False


@dataclass(frozen=True)
class Job:
    id: str = "j"
    revision: int = 1
    state: State = State()


class Catalogue:
    def __init__(self) -> None:
        self.job: Job | None = Job()
        self.reads = 0

    async def again(self) -> Job:
        self.reads += 1
        if self.job is None:
            raise NotFound("there is no such job")
        return self.job

    def change(self, state: State = State()) -> None:
        assert self.job
        self.job = replace(self.job, revision=self.job.revision + 1, state=state)


@dataclass
class Key:
    """Of a listener; `ends` is to be called when it does."""

    ends: Callable[[], None] = lambda: None

    @contextmanager
    def held(self, end: Callable[[], None]) -> Iterator[None]:
        self.ends = end
        yield


def listen(watches: JobWatches, catalogue: Catalogue, key: Key | None = None) -> AsyncIterator[str]:
    assert catalogue.job
    answer = watches.stream(
        catalogue.job,
        reload=catalogue.again,
        render=lambda job, _: {"revision": job.revision},
        held=(key or Key()).held,
    )
    assert isinstance(answer, StreamingResponse)
    return aiter(answer.body_iterator)  # type: ignore[return-value]


def told(event: str) -> int:
    return json.loads(event.partition("data: ")[2])["revision"]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "POLL_S", 0.001)
    monkeypatch.setattr(sse, "MAX_POLL_S", 0.01)


async def test_150_listeners_are_told_of_a_change_that_was_read_once() -> None:
    watches, catalogue = JobWatches(), Catalogue()
    listeners = [listen(watches, catalogue) for _ in range(150)]
    assert {told(await anext(listener)) for listener in listeners} == {1}
    waiting = [asyncio.ensure_future(anext(listener)) for listener in listeners]
    await asyncio.sleep(0)
    assert len(watches) == 1
    before = catalogue.reads
    catalogue.change(State("done", over=True))
    assert {told(event) for event in await asyncio.gather(*waiting)} == {2}
    assert catalogue.reads - before < 10
    for listener in listeners:
        assert [event async for event in listener] == []
    assert len(watches) == 0


async def test_a_change_is_told_however_long_nothing_happened() -> None:
    watches, catalogue = JobWatches(), Catalogue()
    listener = listen(watches, catalogue)
    await anext(listener)
    waiting = asyncio.ensure_future(anext(listener))
    while catalogue.reads < 5:
        await asyncio.sleep(0.001)
    catalogue.change()
    assert told(await waiting) == 2
    await listener.aclose()  # type: ignore[attr-defined]
    assert len(watches) == 0


async def test_a_job_that_was_deleted_ends_every_listeners_stream() -> None:
    watches, catalogue = JobWatches(), Catalogue()
    listeners = [listen(watches, catalogue) for _ in range(2)]
    for listener in listeners:
        await anext(listener)
    catalogue.job = None
    for outcome in await asyncio.gather(*(anext(listener) for listener in listeners), return_exceptions=True):
        assert isinstance(outcome, NotFound)


async def test_nothing_new_for_a_while_is_told_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "KEEPALIVE_S", 0.001)
    listener = listen(JobWatches(), Catalogue())
    await anext(listener)
    assert await anext(listener) == ": still here\n\n"
    await listener.aclose()  # type: ignore[attr-defined]


async def test_a_listener_whose_key_ends_is_let_go_and_the_others_listen_on() -> None:
    watches, catalogue, key = JobWatches(), Catalogue(), Key()
    ended, other = listen(watches, catalogue, key), listen(watches, catalogue)
    assert [told(await anext(listener)) for listener in (ended, other)] == [1, 1]
    waiting = asyncio.ensure_future(anext(ended, None))
    await asyncio.sleep(0)
    key.ends()
    assert await waiting is None
    catalogue.change(State("done", over=True))
    assert told(await anext(other)) == 2


async def test_a_key_that_ends_between_two_events_hears_of_no_third() -> None:
    watches, catalogue, key = JobWatches(), Catalogue(), Key()
    listener = listen(watches, catalogue, key)
    await anext(listener)
    key.ends()
    catalogue.change()
    assert [event async for event in listener] == []
    assert len(watches) == 0
