"""The fleets that the chaos is about, each started once: what one test kills, the next finds started again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack

import httpx
import pytest

from tests.chaos.loose_fleet import LooseFleet, loose_fleet
from tests.chaos.network import obstacle, running_network
from tests.chaos.undisturbed import Undisturbed
from tests.support.deadlines import LONG_HANG_S
from tests.support.receiver import Receiver, running_receiver
from tests.support.running_fleet import RunningFleet


@pytest.fixture
def receiver() -> Iterator[tuple[str, type[Receiver]]]:
    with running_receiver() as running:
        yield running


@pytest.fixture
async def front_door(fleet: RunningFleet) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        base_url=fleet.address, headers=fleet.headers, timeout=LONG_HANG_S, trust_env=False
    ) as client:
        yield client


@pytest.fixture(scope="session")
async def started(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LooseFleet]:
    """Separate programs."""
    no_network = obstacle()
    with ExitStack() as stack:
        network = None if no_network else stack.enter_context(running_network())
        async with loose_fleet(tmp_path_factory.mktemp("loose"), network, no_network) as fleet:
            yield fleet


@pytest.fixture(scope="session")
def undisturbed(started: LooseFleet) -> Undisturbed:
    return Undisturbed(started)


@pytest.fixture
async def loose(started: LooseFleet) -> LooseFleet:
    """The separate programs, every one of them running."""
    await started.until_whole()
    return started
