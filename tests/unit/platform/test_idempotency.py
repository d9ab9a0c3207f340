"""Claims of Idempotency-Keys, and the ids of what a request with one makes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from app.catalog import Catalog
from app.errors import Conflict, InvalidRequest
from app.platform.database import utc_now
from app.platform.idempotency import (
    CLAIM_S,
    CLAIMED,
    KEPT,
    RENEW_S,
    IdempotencyStore,
    check_age,
    new_id,
)
from tests.support.wall_clock import WallClock


@pytest.fixture(autouse=True)
def claimed() -> Iterator[None]:
    token = CLAIMED.set(("prj-1", "order 66"))
    yield
    CLAIMED.reset(token)


def test_it_follows_from_the_project_and_the_key() -> None:
    first = new_id("nar-")
    assert first == new_id("nar-")
    assert len(first) == len("nar-") + 16
    CLAIMED.set(("prj-2", "order 66"))
    assert new_id("nar-") != first
    CLAIMED.set(("prj-1", "order 67"))
    assert new_id("nar-") != first


def test_without_a_key_no_two_are_alike() -> None:
    CLAIMED.set(None)
    assert new_id("nar-") != new_id("nar-")


def test_what_was_made_before_the_keys_day_is_not_taken_for_the_retrys() -> None:
    now = utc_now()
    check_age(now - KEPT, now)
    with pytest.raises(InvalidRequest, match="order 66"):
        check_age(now - KEPT - timedelta(seconds=1), now)


PROJECT, KEY, REQUEST = "prj-1", "order 66", "POST /v1/narrations"


@pytest.fixture
def clock() -> WallClock:
    return WallClock()


@pytest.fixture
async def claims(tmp_path: Path, clock: WallClock) -> AsyncIterator[IdempotencyStore]:
    catalog = Catalog(f"sqlite:///{tmp_path}/catalog.db", pepper=SecretStr("pepper"), now=clock)
    await catalog.migrate()
    yield catalog.idempotency
    await catalog.aclose()


@pytest.mark.anyio
async def test_a_claim_that_is_not_renewed_is_taken_over_soon(claims: IdempotencyStore, clock: WallClock) -> None:
    assert await claims.claim(PROJECT, KEY, REQUEST) is None
    clock.advance(CLAIM_S - 1)
    with pytest.raises(Conflict):
        await claims.claim(PROJECT, KEY, REQUEST)
    clock.advance(2)
    assert await claims.claim(PROJECT, KEY, REQUEST) is None


@pytest.mark.anyio
async def test_a_claim_that_is_renewed_holds_however_long_the_request_takes(
    claims: IdempotencyStore, clock: WallClock
) -> None:
    await claims.claim(PROJECT, KEY, REQUEST)
    for _ in range(20):
        clock.advance(RENEW_S)
        await claims.renew(PROJECT, KEY)
    with pytest.raises(Conflict):
        await claims.claim(PROJECT, KEY, REQUEST)
