"""The id of what a request with an Idempotency-Key makes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from app.errors import InvalidRequest
from app.platform.database import utc_now
from app.platform.idempotency import CLAIMED, KEPT, check_age, new_id


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
