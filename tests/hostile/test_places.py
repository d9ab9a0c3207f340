"""A place at a worker is held while there is text to speak: who says nothing keeps nobody from speaking."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from app.speech.protocol import Cancelled, Done, Flushed, Ready, Segment
from tests.api.conftest import House, OpenHouse
from tests.support.deadlines import HANG_S
from tests.support.fake_worker import FakeWorker
from tests.support.processes import until
from tests.support.session_client import SessionsClient, sessions_client, spoken, still_speaks

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def fleet_of_four(open_house: OpenHouse) -> AsyncIterator[tuple[House, FakeWorker]]:
    async with open_house(idle_place_s=0.05, queue_timeout_s=HANG_S) as house, house.worker() as worker:
        yield house, worker


async def all_rest(worker: FakeWorker) -> None:
    async with asyncio.timeout(HANG_S):
        while worker.sessions:
            await asyncio.sleep(0.01)


async def four_starts(client: SessionsClient) -> None:
    for number in range(4):
        await client.send("start", f"idle{number}", voice="slt")
        await client.until(Ready, f"idle{number}")


async def test_four_empty_starts_hold_nothing_of_a_fleet_of_four(open_house: OpenHouse) -> None:
    async with (
        fleet_of_four(open_house) as (house, _),
        sessions_client(house.sessions_url, house.key) as hoarder,
        sessions_client(house.sessions_url, house.key) as other,
    ):
        await four_starts(hoarder)
        assert await still_speaks(other)


async def test_who_waits_has_the_place_of_the_session_that_was_idle_for_longest(open_house: OpenHouse) -> None:
    async with (
        open_house(idle_place_s=30, queue_timeout_s=HANG_S) as house,
        house.worker() as worker,
        sessions_client(house.sessions_url, house.key) as hoarder,
        sessions_client(house.sessions_url, house.key) as other,
    ):
        await four_starts(hoarder)
        first = next(iter(worker.sessions))
        assert await still_speaks(other)
        assert first not in worker.sessions
        await until(lambda: len(worker.sessions) == 3)  # the worker hears of an end after the client


async def test_a_flood_of_empty_starts_is_ready_and_another_speaks_beside_it(open_house: OpenHouse) -> None:
    async with (
        open_house(idle_place_s=30, queue_timeout_s=HANG_S) as house,
        house.worker(),
        sessions_client(house.sessions_url, house.key) as hoarder,
        sessions_client(house.sessions_url, house.key) as other,
    ):
        for number in range(32):
            await hoarder.send("start", f"idle{number}", voice="slt")
        assert await still_speaks(other)
        for number in range(32):
            await hoarder.until(Ready, f"idle{number}")
        await hoarder.send("text", "idle0", text="One.")
        await hoarder.send("eos", "idle0")
        await hoarder.until(Done, "idle0")
        assert hoarder.heard("idle0") == spoken("One.")


async def test_who_has_text_keeps_the_place_whoever_waits(open_house: OpenHouse) -> None:
    async with (
        open_house(idle_place_s=30, queue_timeout_s=0.3) as house,
        house.worker() as worker,
        sessions_client(house.sessions_url, house.key) as client,
    ):
        worker.allow(characters=0)
        for number in range(4):
            await client.say(f"busy{number}", "One.")
        await worker.until_sessions(4)
        await client.send("start", "late", voice="slt")
        assert (await client.refusal("late")).code == "overloaded"
        worker.allow(characters=None)
        for number in range(4):
            await client.until(Done, f"busy{number}")
        assert len(worker.assigned) == 4


async def test_a_session_that_gave_its_place_back_speaks_when_it_has_something_to_say(open_house: OpenHouse) -> None:
    async with (
        fleet_of_four(open_house) as (house, worker),
        sessions_client(house.sessions_url, house.key) as client,
    ):
        await four_starts(client)
        await all_rest(worker)
        await client.send("text", "idle0", text="One.")
        await client.until(Segment, "idle0")
        await all_rest(worker)
        await client.send("text", "idle0", text="Two.")
        await client.until(Segment, "idle0", count=2)
        await all_rest(worker)
        await client.send("eos", "idle0")
        done = await client.until(Done, "idle0")
        assert client.heard("idle0") == spoken("One.") + spoken("Two.")
        assert done.samples == len(client.heard("idle0")) // 2


async def test_neither_flush_nor_cancel_nor_a_blank_takes_a_place_and_each_is_answered(
    open_house: OpenHouse,
) -> None:
    async with (
        fleet_of_four(open_house) as (house, worker),
        sessions_client(house.sessions_url, house.key) as client,
    ):
        await client.send("start", "idle", voice="slt")
        await client.send("text", "idle", text="One.")
        await client.until(Segment, "idle")
        await all_rest(worker)
        assigned = len(worker.assigned)
        await client.send("text", "idle", text=" ... ")
        await client.send("flush", "idle")
        flushed = await client.until(Flushed, "idle")
        await client.send("cancel", "idle")
        cancelled = await client.until(Cancelled, "idle")
        await client.send("flush", "idle")
        await client.until(Flushed, "idle", count=2)
        assert (cancelled.generation, cancelled.samples, flushed.samples) == (1, 4 * 1200, 4 * 1200)
        assert cancelled.spoken_text == "One."
        assert len(worker.assigned) == assigned
        await client.send("text", "idle", text="Two.")
        await client.send("eos", "idle")
        await client.until(Done, "idle")
        assert client.heard("idle") == spoken("One.") + spoken("Two.")
        assert [frame.generation for frame in client.frames["idle"]][-1] == 1


async def test_a_flush_now_and_then_does_not_keep_a_place(open_house: OpenHouse) -> None:
    async with (
        fleet_of_four(open_house) as (house, worker),
        sessions_client(house.sessions_url, house.key) as client,
    ):
        await client.send("start", "idle", voice="slt")
        await client.until(Ready, "idle")
        flushes = 0
        async with asyncio.timeout(HANG_S):
            while worker.sessions:
                await client.send("flush", "idle")
                flushes += 1
                await client.until(Flushed, "idle", count=flushes)
                await asyncio.sleep(0.01)


async def test_text_that_waits_to_be_spoken_keeps_its_place(open_house: OpenHouse) -> None:
    async with (
        fleet_of_four(open_house) as (house, worker),
        sessions_client(house.sessions_url, house.key) as client,
    ):
        worker.allow(characters=0)
        await client.say("slow", "One. Two.")
        await client.say("other", "Three.")
        worker.allow(characters=None)
        await client.until(Done, "slow")
        await client.until(Done, "other")
        assert client.heard("slow") == spoken("One. Two.")
        assert len(worker.assigned) == 2
