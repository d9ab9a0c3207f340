"""Work that costs a core is done in turn for all who want it."""

from __future__ import annotations

import asyncio

import pytest

from app.platform.lanes import CALLER, FairLanes

pytestmark = pytest.mark.anyio


class Work:
    """Pieces of work that begin when they have a place and end when they are let."""

    def __init__(self, places: int) -> None:
        self.lanes = FairLanes(places)
        self.begun: list[str] = []
        self._ends: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def hand_in(self, caller: str, *names: str) -> None:
        for name in names:
            self._ends[name] = asyncio.Event()
            self._tasks[name] = asyncio.create_task(self._do(caller, name))

    async def _do(self, caller: str, name: str) -> None:
        CALLER.set(caller)
        async with self.lanes.place():
            self.begun.append(name)
            await self._ends[name].wait()

    async def end(self, name: str) -> None:
        self._ends[name].set()
        await self._tasks[name]
        await settled()

    async def give_up(self, name: str) -> None:
        self._tasks[name].cancel()
        await asyncio.wait([self._tasks[name]])
        await settled()


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_one_caller_never_has_every_place_and_another_begins_at_once() -> None:
    work = Work(3)
    work.hand_in("a", "a1", "a2", "a3", "a4")
    await settled()
    assert work.begun == ["a1", "a2"]
    work.hand_in("b", "b1")
    await settled()
    assert work.begun == ["a1", "a2", "b1"]
    for name in ("b1", "a1", "a2", "a3", "a4"):
        await work.end(name)


async def test_callers_have_their_turns_whatever_each_has_handed_in() -> None:
    work = Work(1)
    work.hand_in("a", "a1", "a2", "a3")
    work.hand_in("b", "b1")
    await settled()
    for name in ("a1", "b1", "a2", "a3"):
        assert work.begun[-1] == name
        await work.end(name)


async def test_who_gives_up_waiting_keeps_no_place() -> None:
    work = Work(1)
    work.hand_in("a", "a1", "a2", "a3")
    await settled()
    await work.give_up("a2")
    await work.give_up("a1")
    assert work.begun == ["a1", "a3"]
    await work.end("a3")


async def test_a_place_alone_is_for_one_caller_too() -> None:
    work = Work(1)
    work.hand_in("a", "a1")
    await settled()
    assert work.begun == ["a1"]
    await work.end("a1")
