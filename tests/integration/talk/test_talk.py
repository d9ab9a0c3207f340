"""A recorded question, asked of a running fleet with the real engine: what is heard of the answer, and when.

Each test prints the budget that was shown beside what was measured at the other end (`pytest -s`).
"""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.running_fleet import RunningFleet
from tests.support.talk_peer import Transport, over_socket, over_webrtc, question

pytestmark = [pytest.mark.anyio, pytest.mark.engine]

WAY_MS: dict[Transport, float] = {over_socket: 250, over_webrtc: 2000}
"""What shown and measured may differ by, on a busy machine: the way there and back, and jitter buffers."""

LEAST_S_PER_CHARACTER = 0.01
"""Speech takes 0.07 s for a character, of which most is audible; a crackle is not."""


@pytest.mark.parametrize("transport", [over_socket, over_webrtc])
async def test_the_budget_that_is_shown_is_the_one_that_is_measured(fleet: RunningFleet, transport: Transport) -> None:
    async with transport(fleet.address, fleet.key) as person:
        ended = await person.say(question("count"))
        turn = await person.until("turn")
        answered = await person.until("answered")
        began = person.first_sound_after(ended)
    assert began is not None
    measured_ms = (began - ended) * 1000
    print(f"shown {turn['heard_ms']:.0f} ms, measured {measured_ms:.0f} ms: {turn}")
    assert abs(measured_ms - turn["heard_ms"]) < WAY_MS[transport]
    audio = np.concatenate([samples for at, samples in person.sounds if at >= began - 0.1]).astype(np.float32) / 32768
    audible_s = np.count_nonzero(np.abs(audio) > 0.01) / 24_000
    assert audible_s > len(answered["text"]) * LEAST_S_PER_CHARACTER
