"""Trying again while a store is away."""

from __future__ import annotations

import pytest

from app.errors import AdapterUnavailable, StoreUnavailable
from app.platform.retry import retry_store, retry_store_blocking

pytestmark = pytest.mark.anyio


class Store:
    """Is away for its first `failures` calls."""

    def __init__(self, failures: int) -> None:
        self.calls, self._failures = 0, failures

    def get(self) -> str:
        self.calls += 1
        if self.calls <= self._failures:
            raise StoreUnavailable("the store does not answer")
        return "done"

    async def aget(self) -> str:
        return self.get()


def test_a_store_that_comes_back_is_waited_for_with_growing_pauses() -> None:
    store, pauses = Store(failures=6), list[float]()
    assert retry_store_blocking(store.get, patience_s=60, sleep=pauses.append) == "done"
    assert pauses == [0.5, 1, 2, 4, 4, 4]


def test_a_store_that_stays_away_is_an_error() -> None:
    store = Store(failures=100)
    with pytest.raises(StoreUnavailable):
        retry_store_blocking(store.get, patience_s=0)
    assert store.calls == 1


def test_other_errors_are_not_waited_out() -> None:
    calls = 0

    def refuse() -> None:
        nonlocal calls
        calls += 1
        raise AdapterUnavailable("it uses DoRA")

    with pytest.raises(AdapterUnavailable):
        retry_store_blocking(refuse, patience_s=60)
    assert calls == 1


async def test_a_coroutine_waits_for_its_store_as_well() -> None:
    store = Store(failures=3)
    works = iter([store.aget] * 4)
    assert await retry_store(next(works), pause_s=0, patience_s=60) == "done"
    with pytest.raises(StoreUnavailable):
        await retry_store(Store(failures=100).aget, pause_s=0.01, patience_s=0.05)
