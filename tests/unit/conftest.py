"""What several unit tests begin with."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.shelf import Shelf, StrictEngine


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "store")


@pytest.fixture
def engine() -> StrictEngine:
    return StrictEngine()
