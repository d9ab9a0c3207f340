"""The end of `carillon up`, after all that was done to it: the last to need the fleet."""

from __future__ import annotations

import signal

import psutil
import pytest

from tests.support.processes import ended, until
from tests.support.running_fleet import RunningFleet

pytestmark = [pytest.mark.anyio, pytest.mark.engine]


async def test_ctrl_c_ends_every_process(fleet: RunningFleet) -> None:
    family = psutil.Process(fleet.process.pid).children(recursive=True)
    assert len(family) >= 5
    fleet.process.send_signal(signal.SIGINT)
    await ended(fleet.process.pid)
    for process in family:
        await until(lambda process=process: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)
    assert not (fleet.data_dir / "run.json").exists()
