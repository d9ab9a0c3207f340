"""Several front doors, which do not speak with each other: they agree, and one may die."""

from __future__ import annotations

import pytest

from tests.chaos.loose_fleet import FRONT_DOORS, LooseFleet
from tests.chaos.tale import SENTENCES, TALE, VOICES
from tests.chaos.undisturbed import Undisturbed, assert_same

pytestmark = [pytest.mark.anyio, pytest.mark.engine, pytest.mark.slow]

AUDIBLE = 60_000
"""Samples: two and a half seconds, in the middle of a sentence."""


@pytest.mark.parametrize("voice", VOICES)
async def test_every_front_door_places_a_voice_on_the_same_worker(loose: LooseFleet, voice: str) -> None:
    homes = set()
    for front_door in FRONT_DOORS:
        async with loose.speaking(None, voice=voice, at=front_door) as listener:
            homes.add((await listener.ready()).worker)
        await loose.until_whole()
    assert len(homes) == 1


async def test_sessions_whose_front_door_is_killed_are_taken_up_at_another(
    loose: LooseFleet, undisturbed: Undisturbed
) -> None:
    expected = await undisturbed.run()
    killed, other = FRONT_DOORS
    written = " ".join(SENTENCES[:2])
    async with (
        loose.speaking(pace="realtime", at=killed, resumable=True) as keeping,
        loose.speaking(written, pace="realtime", at=killed, resumable=True, ends=False) as forgetting,
    ):
        await forgetting.spoken(AUDIBLE)
        await keeping.spoken(AUDIBLE)
        loose.kill(killed)
        kept, forgotten = await keeping.closed(), await forgetting.closed()
    played = forgotten.end_sample // 2
    async with (
        loose.resuming(kept, received_samples=kept.end_sample, at=other) as keeping,
        loose.resuming(forgotten, received_samples=played, at=other) as forgetting,
    ):
        assert (await keeping.resumed()).ended
        resumed = await forgetting.resumed()
        assert not resumed.ended
        assert resumed.sample_offset <= played
        await forgetting.write(TALE[resumed.text_chars :])
        assert_same(await keeping.done(), expected)
        assert_same(await forgetting.done(), expected)
