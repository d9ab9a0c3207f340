"""Workers that are drained, one after the other, in a fleet that speaks all the time: no listener notices."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import cycle

import pytest

from tests.chaos.listener import Received
from tests.chaos.loose_fleet import FRONT_DOORS, WORKERS, LooseFleet
from tests.chaos.tale import SHORT_TALE, TALE, VOICES
from tests.chaos.undisturbed import Undisturbed, assert_same

pytestmark = [pytest.mark.anyio, pytest.mark.engine, pytest.mark.slow]

LISTENERS = 2
"""Who listen, in real time, to about as much as the one worker can speak while the other loads beside it."""


@asynccontextmanager
async def traffic(loose: LooseFleet, undisturbed: Undisturbed) -> AsyncIterator[list[Received]]:
    """Sessions that begin and end all the time, with either voice at either front door. Each must be undisturbed."""
    received: list[Received] = []
    over = asyncio.Event()

    async def listen(number: int) -> None:
        for turn in cycle(range(4)):
            if over.is_set():
                return
            voice, at = VOICES[(number + turn) % 2], FRONT_DOORS[turn // 2]
            async with loose.speaking(SHORT_TALE, voice=voice, at=at, pace="realtime") as listener:
                await listener.done()
            assert_same(listener.received, await undisturbed.run(SHORT_TALE, voice))
            received.append(listener.received)

    for voice in VOICES:
        await undisturbed.run(SHORT_TALE, voice)
    async with asyncio.TaskGroup() as group:
        for number in range(LISTENERS):
            group.create_task(listen(number))
        yield received
        over.set()


async def drain(loose: LooseFleet, worker: str, deadline_s: float) -> None:
    async with loose.client() as client:
        answer = await client.post(f"/v1/fleet/workers/{worker}/drain", json={"deadline_s": deadline_s})
    assert answer.is_success, answer.text


async def test_a_rolling_restart_of_all_workers_under_load_reaches_no_client(
    loose: LooseFleet, undisturbed: Undisturbed
) -> None:
    expected = await undisturbed.run()
    async with traffic(loose, undisturbed) as received:
        async with loose.speaking(pace="realtime") as patient:
            first = (await patient.ready()).worker
            [second] = set(WORKERS) - {first}
            await patient.spoken(1)
            pid = loose.pid_of(first)
            await drain(loose, first, deadline_s=600)
            assert_same(await patient.done(), expected)
        assert moves(patient.received) == 0, "it had the time to end where it was"
        await loose.until_gone(first, pid)
        async with loose.speaking(None, pace="realtime") as moved:
            assert (await moved.ready()).worker == second
            await loose.until_active(first)
            await moved.write(TALE)
            await moved.spoken(1)
            await drain(loose, second, deadline_s=0.5)
            assert_same(await moved.done(), expected)
        assert moves(moved.received) == 1
    await loose.until_whole()
    assert {listener.ready.worker for listener in received if listener.ready} == set(WORKERS)
    for worker in WORKERS:
        assert "sessions_cut=0" in loose.log_of(worker)


def moves(received: Received) -> int:
    assert received.done
    return received.done.ledger.moves
