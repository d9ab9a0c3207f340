"""Attempts at a clone job that meet what nobody foresaw, on a real SQLite file."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from app.catalog import Catalog
from app.errors import CarillonError, ConfigurationError
from app.platform.object_store import ObjectStore
from app.platform.settings import CloningSettings, Settings, StoreSettings
from app.speech.recipe import CloneConfig
from app.voices.models import CloneJob, CloneKind, CloneState
from tasks.clone import JobRun

pytestmark = pytest.mark.anyio

ATTEMPTS = 3


class BrokenStore(ObjectStore):
    """A store that raises `fault`, whatever is asked of it."""

    fault: Exception = LookupError("a user's words")

    def keys(self, prefix: str) -> Iterator[str]:
        raise self.fault


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path, key_pepper=SecretStr("pepper"), cloning=CloningSettings(max_attempts=ATTEMPTS))


@pytest.fixture
async def catalog(settings: Settings) -> AsyncIterator[Catalog]:
    catalog = Catalog(settings.database, pepper=settings.key_pepper)
    await catalog.migrate()
    yield catalog
    await catalog.aclose()


@pytest.fixture
async def job(catalog: Catalog) -> CloneJob:
    voice = await catalog.voices.create("Mary", model="standin")
    return await catalog.jobs.create(voice.id, kind=CloneKind.CLONE, config=CloneConfig())


@pytest.fixture
def store() -> Iterator[BrokenStore]:
    store = BrokenStore(StoreSettings(endpoint_url="http://127.0.0.1:9"))
    yield store
    store.close()


async def attempt(settings: Settings, catalog: Catalog, store: ObjectStore, job: CloneJob) -> CloneJob | None:
    taken = await catalog.jobs.claim(job.id)
    assert taken
    return await JobRun(settings, catalog, store, taken).to_the_end()


async def test_what_nobody_foresaw_gives_the_job_back_until_its_attempts_are_used_up(
    settings: Settings, catalog: Catalog, store: BrokenStore, job: CloneJob
) -> None:
    for _ in range(ATTEMPTS - 1):
        assert await attempt(settings, catalog, store, job) is None
        given_back = await catalog.jobs.get(job.id)
        assert (given_back.state, given_back.error) == (CloneState.QUEUED, None)
    ended = await attempt(settings, catalog, store, job)
    assert ended
    assert (ended.state, ended.attempt) == (CloneState.FAILED, ATTEMPTS)
    assert ended.error
    assert (ended.error.code, ended.error.retryable) == ("stage_failed", True)
    assert ended.error.message.startswith("the job broke with LookupError at test_clone.py:")
    assert "a user's words" not in ended.error.message


async def test_a_defect_that_a_stage_or_a_reader_reports_is_one_that_nobody_foresaw(
    settings: Settings, catalog: Catalog, store: BrokenStore, job: CloneJob
) -> None:
    store.fault = CarillonError("the stage broke: TypeError")
    for _ in range(ATTEMPTS - 1):
        assert await attempt(settings, catalog, store, job) is None
    ended = await attempt(settings, catalog, store, job)
    assert ended and ended.error
    assert (ended.error.code, ended.error.message) == ("internal_error", "the stage broke: TypeError")


async def test_what_another_attempt_would_not_mend_ends_the_job_at_once(
    settings: Settings, catalog: Catalog, store: BrokenStore, job: CloneJob
) -> None:
    store.fault = ConfigurationError("another model")
    ended = await attempt(settings, catalog, store, job)
    assert ended and ended.error
    assert (ended.attempt, ended.error.code) == (1, "configuration_error")


async def test_a_job_whose_attempts_are_used_up_by_deaths_says_so(
    settings: Settings, catalog: Catalog, store: BrokenStore, job: CloneJob
) -> None:
    for _ in range(ATTEMPTS):
        taken = await catalog.jobs.claim(job.id)
        assert taken
        await catalog.jobs.give_back(taken)
    ended = await attempt(settings, catalog, store, job)
    assert ended and ended.error
    assert (ended.error.code, ended.error.message) == (
        "training_failed",
        f"{ATTEMPTS} workers died over this job; see their logs",
    )
