"""Several front doors, which do not speak with each other: they agree, and one may die."""

from __future__ import annotations

import pytest

from tests.chaos.loose_fleet import FRONT_DOORS, LooseFleet
from tests.chaos.tale import VOICES

pytestmark = [pytest.mark.anyio, pytest.mark.engine]


@pytest.mark.parametrize("voice", VOICES)
async def test_every_front_door_places_a_voice_on_the_same_worker(loose: LooseFleet, voice: str) -> None:
    homes = set()
    for front_door in FRONT_DOORS:
        async with loose.speaking(None, voice=voice, at=front_door) as listener:
            homes.add((await listener.ready()).worker)
        await loose.until_whole()
    assert len(homes) == 1
