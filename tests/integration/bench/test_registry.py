from __future__ import annotations

import io
import json
from pathlib import Path

from app.bench.registry import run


def test_the_registrys_costs_are_reported_of_every_fleet_in_the_table_and_in_the_file(tmp_path: Path) -> None:
    out, path = io.StringIO(), tmp_path / "costs.json"
    run(workers=[2, 4], session_s=60.0, json_path=path, out=out)
    costs = json.loads(path.read_text("utf-8"))
    assert [cost["workers"] for cost in costs] == [2, 4]
    assert [line.split()[0] for line in out.getvalue().splitlines()[1:]] == ["2", "4"]
    for cost in costs:
        assert all(value > 0 for value in cost.values())
