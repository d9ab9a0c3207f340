"""One running fleet for all the chaos: what one test kills, the next finds started again."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from tests.receiver import Receiver, running_receiver
from tests.running_fleet import RunningFleet, running_fleet


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningFleet]:
    configured = {
        "CARILLON_DRAIN_TIMEOUT_S": "1",
        "CARILLON_CLONING__WEBHOOK_SECRET": "whsec_" + base64.b64encode(bytes(32)).decode(),
        "CARILLON_CLONING__WEBHOOK_PRIVATE_HOSTS": "true",
    }
    with running_fleet(tmp_path_factory.mktemp("chaos"), configured) as running:
        yield running


@pytest.fixture
def receiver() -> Iterator[tuple[str, type[Receiver]]]:
    with running_receiver() as running:
        yield running


@pytest.fixture
async def front_door(fleet: RunningFleet) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=fleet.address, headers=fleet.headers, timeout=60, trust_env=False) as client:
        yield client
