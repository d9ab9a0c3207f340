"""A cloned voice whose worker is killed while it speaks: the next worker fetches the adapter and goes on."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.chaos.listener import listening
from tests.chaos.tale import TALE
from tests.support.random_adapters import save_random_adapter
from tests.support.running_fleet import RunningFleet

pytestmark = [pytest.mark.anyio, pytest.mark.engine, pytest.mark.slow]

MID_SENTENCE = 30_000
"""Samples."""


async def test_a_clone_goes_on_where_its_worker_died_with_the_adapter_fetched_again(
    fleet: RunningFleet, tmp_path: Path
) -> None:
    await fleet.publish("Grace", save_random_adapter(tmp_path / "grace", seed=1))
    async with listening(fleet.address, fleet.headers, voice="Grace", pace="unpaced", resumable=False) as listener:
        await listener.write(TALE)
        await listener.spoken(MID_SENTENCE)
        os.kill(fleet.pid_of("worker-1"), signal.SIGKILL)
        received = await listener.done()
    assert not received.errors
    assert " ".join(segment.text for segment in received.segments) == TALE
    assert received.done
    assert received.done.ledger.moves >= 1
    assert received.done.samples == received.end_sample
