"""A Redis that is killed, or emptied, under load: sessions play on, new ones begin, and no place is given twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack

import pytest

from tests.chaos.listener import Listener
from tests.chaos.loose_fleet import CAPACITY, FRONT_DOORS, WORKERS, LooseFleet
from tests.chaos.tale import SHORT_TALE, VOICES
from tests.chaos.undisturbed import Undisturbed, assert_same
from tests.support.processes import until_async

pytestmark = [pytest.mark.anyio, pytest.mark.engine, pytest.mark.slow]


async def begun(loose: LooseFleet, stack: AsyncExitStack, number: int) -> Listener | None:
    """A session that says nothing yet, or None where there is no room for it."""
    at, voice = FRONT_DOORS[number % 2], VOICES[number // 2 % 2]
    listener = await stack.enter_async_context(loose.speaking(None, at=at, voice=voice))
    error = await listener.refused()
    if error is None:
        return listener
    assert error.retryable, error
    return None


async def begun_in_the_end(loose: LooseFleet, stack: AsyncExitStack, number: int) -> Listener:
    """As `begun`, from a client that tries again as the error says."""
    while True:
        if listener := await begun(loose, stack, number):
            return listener


async def assert_leases_are_sessions(loose: LooseFleet, open_sessions: list[Listener]) -> None:
    """The registry comes to hold one lease for each session, at its worker, and no more."""
    at_worker = Counter([(await listener.ready()).worker for listener in open_sessions])
    assert max(at_worker.values()) <= CAPACITY

    async def agrees() -> bool:
        leases = {worker: await loose.leases(worker) for worker in WORKERS}
        assert max(leases.values()) <= CAPACITY, leases
        return leases == {worker: at_worker[worker] for worker in WORKERS}

    await until_async(agrees)


@pytest.mark.parametrize("how", ["killed", "emptied"])
async def test_sessions_play_on_without_redis_and_new_ones_begin_once_it_is_back(
    loose: LooseFleet, undisturbed: Undisturbed, how: str
) -> None:
    expected, shorter = await undisturbed.run(), await undisturbed.run(SHORT_TALE)
    async with AsyncExitStack() as stack:
        live = await stack.enter_async_context(loose.speaking(pace="realtime"))
        waiting = [await begun_in_the_end(loose, stack, number) for number in (0, 1)]
        await live.spoken(1)
        if how == "killed":
            loose.kill("valkey")
        else:
            async with loose.redis() as redis:
                await redis.flushall()
        late = await begun_in_the_end(loose, stack, 0)
        await assert_leases_are_sessions(loose, [live, *waiting, late])
        await late.write(SHORT_TALE)
        assert_same(await live.done(), expected)
        assert_same(await late.done(), shorter)
        for listener in waiting:
            await listener.write(SHORT_TALE)
        assert_same(await waiting[0].done(), shorter)
        await waiting[1].done()
    await loose.until_whole()


async def test_no_place_is_given_twice_after_redis_was_emptied(loose: LooseFleet) -> None:
    places = CAPACITY * len(WORKERS)
    async with AsyncExitStack() as stack:
        running = [await begun_in_the_end(loose, stack, number) for number in range(places - 4)]
        async with loose.redis() as redis:
            await redis.flushall()
        wanted = await asyncio.gather(*(begun(loose, stack, number) for number in range(12)))
        running += [listener for listener in wanted if listener]
        assert len(running) <= places
        while len(running) < places:
            running.append(await begun_in_the_end(loose, stack, len(running)))
        await assert_leases_are_sessions(loose, running)
        assert not any(listener.received.errors or listener.received.closed for listener in running)
        assert await begun(loose, stack, 0) is None
    await loose.until_whole()
