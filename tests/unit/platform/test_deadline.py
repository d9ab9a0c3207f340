from __future__ import annotations

import asyncio

import pytest

from app.platform.deadline import Deadline
from tests.support.deadlines import HANG_S

pytestmark = pytest.mark.anyio

SOON_S = 0.01
LATER_S = HANG_S


async def test_a_wait_beyond_its_limit_ends_in_a_timeout() -> None:
    deadline = Deadline()
    with pytest.raises(TimeoutError), deadline.within(SOON_S):
        await asyncio.Event().wait()


async def test_a_wait_that_ends_in_time_leaves_no_trace() -> None:
    deadline = Deadline()
    with deadline.within(SOON_S):
        await asyncio.sleep(0)
    await asyncio.sleep(3 * SOON_S)


async def test_each_wait_has_its_own_limit_whatever_timer_was_set_for_those_before() -> None:
    deadline = Deadline()
    with deadline.within(LATER_S):
        await asyncio.sleep(0)
    with pytest.raises(TimeoutError), deadline.within(SOON_S):
        await asyncio.Event().wait()
    with deadline.within(SOON_S):
        await asyncio.sleep(0)
    with pytest.raises(TimeoutError), deadline.within(2 * SOON_S):
        await asyncio.Event().wait()


async def test_a_later_limit_outlives_the_timer_of_an_earlier_one() -> None:
    deadline = Deadline()
    with deadline.within(SOON_S):
        await asyncio.sleep(0)
    with deadline.within(LATER_S):
        await asyncio.sleep(3 * SOON_S)
    deadline.close()


async def test_an_error_of_the_wait_stays_what_it_is() -> None:
    deadline = Deadline()
    with pytest.raises(ValueError, match="broken"), deadline.within(LATER_S):
        raise ValueError("broken")
    deadline.close()


async def test_a_cancel_from_outside_stays_a_cancel() -> None:
    deadline = Deadline()

    async def wait() -> None:
        with deadline.within(LATER_S):
            await asyncio.Event().wait()

    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    deadline.close()


async def test_a_cancel_beside_the_limit_goes_first() -> None:
    deadline = Deadline()

    async def wait() -> None:
        with deadline.within(0.0):
            await asyncio.Event().wait()

    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0)
    # The timer is due; before it can fire, somebody ends the task.
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_task_goes_on_after_its_limit_as_if_nobody_had_cancelled_it() -> None:
    deadline = Deadline()
    task = asyncio.current_task()
    assert task
    with pytest.raises(TimeoutError), deadline.within(SOON_S):
        await asyncio.Event().wait()
    assert task.cancelling() == 0
    async with asyncio.timeout(LATER_S):
        await asyncio.sleep(0)
