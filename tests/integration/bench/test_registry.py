from __future__ import annotations

import io
from dataclasses import astuple

from app.bench.registry import run


def test_the_registrys_costs_are_reported_of_every_fleet_in_the_table() -> None:
    out = io.StringIO()
    costs = run(workers=[2, 4], session_s=60.0, out=out)
    assert [cost.workers for cost in costs] == [2, 4]
    assert [line.split()[0] for line in out.getvalue().splitlines()[1:]] == ["2", "4"]
    for cost in costs:
        assert all(value > 0 for value in astuple(cost))
