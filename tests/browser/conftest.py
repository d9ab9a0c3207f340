"""One Chromium and one fleet for all: the real engine with the stand-in, and a recipe that makes voices quickly."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.support.browser import Visit, running_chromium, visit
from tests.support.running_fleet import QUICK_RECIPE, RunningFleet, running_fleet


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Signing in comes first: the link that `make up` prints holds for a quarter of an hour."""
    items.sort(key=lambda item: item.path.name != "test_sign_in.py")


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningFleet]:
    with running_fleet(tmp_path_factory.mktemp("fleet"), QUICK_RECIPE) as running:
        yield running


@pytest.fixture(scope="session")
def chromium(fleet: RunningFleet) -> Iterator[Browser]:
    with running_chromium() as browser:
        yield browser


@pytest.fixture
def console(chromium: Browser, fleet: RunningFleet) -> Iterator[Visit]:
    """Signed in, on the first page."""
    with visit(chromium, fleet) as opened:
        yield opened
