"""CLIENTS.md names tests: each of them exists, so that no feature is claimed that is not tried."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "app" / "api" / "CLIENTS.md"
ROW = re.compile(r"^\| [^|]+ \| (test_\w+\.py) \| (.+) \|$", re.MULTILINE)


def test_every_cell_of_the_table_is_a_test() -> None:
    rows = ROW.findall(PAGE.read_text())
    assert len(rows) > 5
    for file, cells in rows:
        source = (ROOT / "tests" / "clients" / file).read_text()
        for cell in cells.split(" | "):
            assert cell == "–" or f"def {cell}(" in source, f"{file} has no {cell}"
