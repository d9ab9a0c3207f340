"""`carillon bench fleet` in small: its parts are the real ones, and its counts must be right; no time is checked."""

from __future__ import annotations

import io
import os
import sys

import pytest

from app.bench.figures import Plan
from app.bench.front_door import run
from app.bench.replay_fleet import Cores
from tests.support.deadlines import HANG_S


def test_a_bench_holds_sessions_loses_no_sample_and_leaves_no_process() -> None:
    plan = Plan(
        sessions=(6,),
        seconds=3.0,
        ramp_s=1.0,
        settle_s=0.0,
        length_s=2.0,
        sessions_per_socket=4,
        direct_sessions=2,
        starts_per_s=(8.0,),
        starts_s=1.0,
        idle_s=0.2,
        drain_s=1.0,
        patience_s=HANG_S,
    )
    out = io.StringIO()
    report = run(plan=plan, workers=2, frames_per_message=4, out=out)

    (step,), (starts,) = report["steps"], report["starts"]
    assert step["errors"] == {} and step["refused"] == 0
    assert step["held"] > 0 and step["messages_per_s"] > 0 and step["texts_per_s"] > 0
    assert step["through"]["count"] > 0 and step["direct"]["count"] > 0
    assert step["through"]["p50"] > 0 and step["direct"]["p50"] > 0, "the stamps are not where they should be"
    assert step["rss_bytes"] > 0
    assert starts["errors"] == {} and starts["refused"] == 0
    assert starts["begun"] == starts["done"] == starts["start_ms"]["count"] > 0
    assert "frames/s" in out.getvalue()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux pins processes to cores")
def test_cores_are_given_for_a_while_and_taken_back() -> None:
    have = os.sched_getaffinity(0)
    with Cores().only(frozenset({min(have)})):
        assert os.sched_getaffinity(0) == {min(have)}
    assert os.sched_getaffinity(0) == have
