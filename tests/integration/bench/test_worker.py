"""`carillon bench worker` on this checkout: a real worker on a scripted core and codec."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.bench.worker import run

pytestmark = [pytest.mark.engine, pytest.mark.slow]


def test_sessions_of_a_scripted_worker_are_measured() -> None:
    (side,) = run(
        [Path(__file__).parents[3]], sessions=[2], rounds=1, seconds=0.5, pace=1.5, progress=lambda text: None
    )
    (load,) = side.loads
    assert load.sessions == 2
    assert load.cores > 0 and load.loop_cores > 0
    assert load.frames_per_s > 0
    assert load.us_per_frame > 0
