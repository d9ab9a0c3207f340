"""What several unit tests begin with."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.shelf import Shelf, StrictEngine

if TYPE_CHECKING:
    from workers.decoder import Decoder


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "store")


@pytest.fixture
def engine() -> StrictEngine:
    return StrictEngine()


@pytest.fixture
async def decoder() -> AsyncIterator[Decoder]:
    from tests.support.worker_sessions import CODEC
    from workers.decoder import Decoder

    async with Decoder(CODEC, max_sessions=4) as decoder:
        yield decoder
