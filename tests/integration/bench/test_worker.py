"""`carillon bench worker` on this checkout: a real worker on a scripted core and codec."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.bench.worker import run

pytestmark = [pytest.mark.engine, pytest.mark.slow]


def test_sessions_of_a_scripted_worker_are_measured() -> None:
    # As many, and as long, as is several of the kernel's ticks of CPU, which are 10 ms.
    (side,) = run([Path(__file__).parents[3]], sessions=[20], rounds=1, seconds=3, pace=1.5, progress=lambda text: None)
    (load,) = side.loads
    assert load.sessions == 20
    assert load.cores > 0 and load.loop_cores > 0
    assert load.frames_per_s > 0
    assert load.us_per_frame > 0
