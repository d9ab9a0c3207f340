"""`carillon bench tenants` in small, at a fleet that replays: what floods is answered, and the other is heard."""

from __future__ import annotations

import io
from collections.abc import Sequence

import pytest

from app.bench.tenants import at_a_replaying_fleet, run


@pytest.mark.slow
def test_one_project_is_heard_while_another_floods() -> None:
    out, reports = io.StringIO(), []

    def measure(url: str, key: str | None, voices: Sequence[str]) -> None:
        report = run(
            url=url,
            key=key,
            voice=voices[0],
            ways=["requests", "starts", "half-open", "keyless"],
            sessions=2,
            rounds=1,
            pace="unpaced",
            progress=print,
            out=out,
        )
        reports.append(report)

    at_a_replaying_fleet(measure)
    [report] = reports
    assert report["limits"] == {"sessions": 8, "queued_jobs": 10}
    ways = {one["way"]: one for one in report["ways"]}
    for one in ways.values():
        assert one["sessions"] >= 1 and one["errors"].keys() <= {"overloaded"}, one
        assert one["alone_ms"]["p95"] > 0 and one["ratio"] > 0 and one["flood"], one
    assert ways["requests"]["flood"].keys() == {"200"} and not {"200", "202"} & ways["keyless"]["flood"].keys()
    assert ways["starts"]["flood"]["ready"] >= 8 and "rate_limited" in ways["starts"]["flood"]
    assert "of alone" in out.getvalue()
