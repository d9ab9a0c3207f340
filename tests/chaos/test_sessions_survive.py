"""Workers that are killed, stopped and cut off under their sessions: each plays as if nothing had happened.

A listener asserts of every frame that it follows on the one before; at the end the audio and the text are compared with
those of an undisturbed session.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from app.speech.protocol import Cancel
from tests.chaos.listener import Received
from tests.chaos.loose_fleet import FRONT_DOORS, WORKERS, LooseFleet
from tests.chaos.tale import SENTENCES, SHORT_TALE, TALE
from tests.chaos.undisturbed import Undisturbed, assert_same, assert_same_audio

pytestmark = [pytest.mark.anyio, pytest.mark.engine, pytest.mark.slow]

MID_SENTENCE = 60_000
"""Samples: two and a half seconds, of a sentence of four."""


Harm = tuple[Callable[[str], None], Callable[[str], None]]
"""What is done to a worker, and what undoes it."""


def harms(loose: LooseFleet) -> dict[str, Harm]:
    """What can be done to a worker here.

    One that is hidden is reached by no front door, and yet its heartbeats say that all is well.
    """
    ways: dict[str, Harm] = {"stopped": (loose.stop, loose.wake)}
    if network := loose.network:
        ways |= {"cut off": (network.cut, network.mend), "hidden": (network.hide, network.show)}
    return ways


@contextmanager
def harmed(loose: LooseFleet, worker: str, how: str) -> Iterator[None]:
    """Harm a worker while the context lasts."""
    harm, mend = harms(loose)[how]
    harm(worker)
    try:
        yield
    finally:
        mend(worker)


def moves(received: Received) -> int:
    """How often a session went on at another worker."""
    assert received.done
    return received.done.ledger.moves


async def test_the_same_text_is_the_same_audio_however_it_comes_and_whatever_is_spoken_beside(
    loose: LooseFleet, undisturbed: Undisturbed
) -> None:
    expected = await undisturbed.run()
    assert [segment.text for segment in expected.segments] == list(SENTENCES)
    assert all(segment.complete for segment in expected.segments)
    words = [f"{word} " for word in TALE.split()]
    async with loose.speaking(words) as first, loose.speaking(at=FRONT_DOORS[1]) as second:
        assert_same(await first.done(), expected)
        assert_same(await second.done(), expected)


@pytest.mark.parametrize("how", ["stopped", "cut off", "hidden"])
async def test_sessions_whose_worker_is_lost_go_on_as_if_nothing_had_happened(
    loose: LooseFleet, undisturbed: Undisturbed, how: str
) -> None:
    if how not in harms(loose):
        pytest.skip(f"no worker can be {how}: {loose.no_network}")
    expected = await undisturbed.run()
    async with (
        asyncio.TaskGroup() as group,
        loose.speaking(pace="realtime") as live,
        loose.speaking() as hurried,
        loose.speaking(None) as silent,
    ):
        downloading = group.create_task(loose.download())
        worker = (await live.ready()).worker
        await silent.ready()
        await hurried.spoken(MID_SENTENCE)
        await live.spoken(MID_SENTENCE)
        with harmed(loose, worker, how):
            await silent.write(SHORT_TALE)
            received = await live.done()
            assert_same(received, expected)
            assert_same(await hurried.done(), expected)
            assert_same_audio(np.frombuffer(await downloading, dtype="<i2"), expected)
            assert_same(await silent.done(), await undisturbed.run(SHORT_TALE))
    assert moves(received) >= 1


async def test_sessions_whose_every_worker_dies_go_on_with_the_first_that_is_back(
    loose: LooseFleet, undisturbed: Undisturbed
) -> None:
    expected = await undisturbed.run()
    async with asyncio.TaskGroup() as group, loose.speaking(pace="realtime") as live:
        worker = (await live.ready()).worker
        [other] = set(WORKERS) - {worker}
        downloading = group.create_task(loose.download())
        await live.spoken(MID_SENTENCE)
        os.kill(loose.engine_of(worker), signal.SIGKILL)
        # Beyond what the first had sent ahead, so that it is the second that speaks.
        await live.spoken(live.received.end_sample + 2 * MID_SENTENCE)
        loose.kill(other)
        received = await live.done()
        assert_same(received, expected)
        assert_same_audio(np.frombuffer(await downloading, dtype="<i2"), expected)
    assert moves(received) >= 2


async def test_a_barge_in_while_the_session_moves_is_answered_and_the_next_turn_is_played(
    loose: LooseFleet, undisturbed: Undisturbed
) -> None:
    async with loose.speaking(pace="realtime", ends=False) as listener:
        worker = (await listener.ready()).worker
        played = (await listener.spoken(MID_SENTENCE)).end_sample
        with harmed(loose, worker, "stopped"):
            await listener.say(Cancel(session=listener.session, played_samples=played))
            await listener.write(SHORT_TALE)
            received = await listener.done()
    [cancelled] = received.cancelled
    assert cancelled.spoken_text
    assert SENTENCES[0].startswith(cancelled.spoken_text)
    assert_same(received.last_turn(), await undisturbed.run(SHORT_TALE))
