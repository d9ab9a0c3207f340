"""What several unit tests begin with."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr

from tests.support.shelf import Shelf, StrictEngine
from tests.support.wall_clock import WallClock

if TYPE_CHECKING:
    from app.catalog import Catalog
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


@pytest.fixture
def clock() -> WallClock:
    return WallClock()


@pytest.fixture
async def catalog(tmp_path: Path, clock: WallClock) -> AsyncIterator[Catalog]:
    from app.catalog import Catalog

    catalog = Catalog(f"sqlite:///{tmp_path}/catalog.db", pepper=SecretStr("pepper"), now=clock)
    await catalog.migrate()
    yield catalog
    await catalog.aclose()
