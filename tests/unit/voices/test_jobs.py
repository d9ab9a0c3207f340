"""Clone jobs on a real SQLite file: claims that lapse, attempts that fence, cancellation."""

from __future__ import annotations

import asyncio

import pytest

from app.catalog import Catalog
from app.errors import Conflict, JobLost, NotFound
from app.platform.jobs import CLAIM_S, JobError
from app.speech.recipe import CloneConfig
from app.voices.models import CloneJob, CloneKind, CloneState, TrainProgress
from tests.support.wall_clock import WallClock

pytestmark = pytest.mark.anyio


async def completed(catalog: Catalog, job: CloneJob) -> CloneJob:
    taken = await claimed(catalog, job)
    adapter = await catalog.voices.add_version(job.voice_id, uri="s3://b/v/", sha256={"a": "0"}, rank=16)
    return await catalog.jobs.complete(taken, adapter.version)


@pytest.fixture
async def job(catalog: Catalog) -> CloneJob:
    voice = await catalog.voices.create("Mary", model="standin")
    config = CloneConfig().overridden({"train": {"epochs": 2}})
    return await catalog.jobs.create(
        voice.id, kind=CloneKind.CLONE, config=config, webhook_url="https://example.org/hook"
    )


async def claimed(catalog: Catalog, job: CloneJob) -> CloneJob:
    taken = await catalog.jobs.claim(job.id)
    assert taken
    return taken


async def test_a_new_job_is_queued_with_its_configuration(catalog: Catalog, job: CloneJob) -> None:
    assert await catalog.jobs.get(job.id) == job
    assert (job.state, job.attempt, job.config.train.epochs) == (CloneState.QUEUED, 0, 2)
    [listed] = await catalog.jobs.all(voice_id=job.voice_id)
    assert listed == job.model_copy(update={"ahead": None})  # only one job's own page counts those before it
    assert await catalog.jobs.all(voice_id="another") == []


async def test_a_second_job_of_a_voice_is_refused_until_the_first_is_over(catalog: Catalog, job: CloneJob) -> None:
    with pytest.raises(Conflict, match=job.id):
        await catalog.jobs.create(job.voice_id, kind=CloneKind.CLONE, config=CloneConfig())
    await completed(catalog, job)
    await catalog.jobs.create(job.voice_id, kind=CloneKind.CLONE, config=CloneConfig())


async def test_of_many_that_claim_a_job_at_once_one_has_it(catalog: Catalog, job: CloneJob) -> None:
    claims = await asyncio.gather(*(catalog.jobs.claim(job.id) for _ in range(8)))
    assert [taken.attempt for taken in claims if taken] == [1]


async def test_a_claim_lasts_while_it_is_renewed(catalog: Catalog, job: CloneJob, clock: WallClock) -> None:
    taken = await claimed(catalog, job)
    for _ in range(3):
        clock.advance(CLAIM_S - 1)
        assert await catalog.jobs.renew(taken) is False
        assert await catalog.jobs.claim(job.id) is None
    clock.advance(CLAIM_S + 1)
    assert (await claimed(catalog, job)).attempt == 2


async def test_who_has_lost_a_job_can_change_nothing(catalog: Catalog, job: CloneJob, clock: WallClock) -> None:
    first = await claimed(catalog, job)
    clock.advance(CLAIM_S + 1)
    second = await claimed(catalog, job)
    for attempt in (
        catalog.jobs.renew(first),
        catalog.jobs.update(first, state=CloneState.TRAINING),
        catalog.jobs.finish(first, CloneState.CANCELLED),
        catalog.jobs.complete(first, 1),
        catalog.jobs.give_back(first),
    ):
        with pytest.raises(JobLost, match="attempt 1"):
            await attempt
    await catalog.jobs.finish(second, CloneState.CANCELLED)
    with pytest.raises(JobLost):
        await catalog.jobs.finish(second, CloneState.FAILED)


async def test_a_job_ends_and_its_version_is_in_force_in_one_step(catalog: Catalog, job: CloneJob) -> None:
    ended = await completed(catalog, job)
    assert (ended.state, ended.version) == (CloneState.COMPLETED, 1)
    assert (await catalog.voices.get(job.voice_id)).version == 1


async def test_a_job_whose_voice_is_gone_publishes_nothing(catalog: Catalog, job: CloneJob) -> None:
    taken = await claimed(catalog, job)
    await catalog.voices.delete(job.voice_id)
    assert (await catalog.jobs.complete(taken, 1)).state is CloneState.CANCELLED


async def test_a_version_that_is_not_there_is_not_put_in_force(catalog: Catalog, job: CloneJob) -> None:
    taken = await claimed(catalog, job)
    with pytest.raises(NotFound):
        await catalog.jobs.complete(taken, 1)
    assert (await catalog.jobs.get(job.id)).finished_at is None


async def test_every_change_worth_telling_raises_the_revision_and_a_renewal_does_not(
    catalog: Catalog, job: CloneJob
) -> None:
    taken = await claimed(catalog, job)
    progress = TrainProgress(epoch=1, epochs=2, step=3, steps=10, loss=2.5)
    told = await catalog.jobs.update(taken, state=CloneState.TRAINING, progress=progress)
    assert (told.revision, told.state, told.progress) == (taken.revision + 1, CloneState.TRAINING, progress)
    await catalog.jobs.renew(taken)
    assert (await catalog.jobs.get(job.id)).revision == told.revision


async def test_a_job_that_nobody_holds_is_cancelled_at_once(catalog: Catalog, job: CloneJob) -> None:
    assert (await catalog.jobs.request_cancel(job.id)).state is CloneState.CANCELLED
    assert await catalog.jobs.claim(job.id) is None


async def test_a_job_in_work_is_told_to_stop_with_its_next_renewal(catalog: Catalog, job: CloneJob) -> None:
    taken = await claimed(catalog, job)
    assert (await catalog.jobs.request_cancel(job.id)).state is CloneState.QUEUED
    assert await catalog.jobs.renew(taken) is True
    ended = await catalog.jobs.finish(taken, CloneState.CANCELLED)
    assert ended.finished_at


async def test_a_job_asked_to_stop_is_not_given_to_the_next_worker(catalog: Catalog, job: CloneJob) -> None:
    taken = await claimed(catalog, job)
    await catalog.jobs.request_cancel(job.id)
    await catalog.jobs.give_back(taken)
    assert (await catalog.jobs.get(job.id)).state is CloneState.CANCELLED
    assert await catalog.jobs.cancelled(since=taken.created_at) == [(job.voice_id, job.id)]


async def test_a_job_asked_to_stop_whose_worker_died_ends_with_its_claim(
    catalog: Catalog, job: CloneJob, clock: WallClock
) -> None:
    await claimed(catalog, job)
    await catalog.jobs.request_cancel(job.id)
    await catalog.jobs.end_cancelled()
    assert (await catalog.jobs.get(job.id)).finished_at is None
    clock.advance(CLAIM_S + 1)
    await catalog.jobs.end_cancelled()
    assert (await catalog.jobs.get(job.id)).state is CloneState.CANCELLED


async def test_a_job_asked_to_stop_at_the_last_moment_publishes_nothing(catalog: Catalog, job: CloneJob) -> None:
    taken = await claimed(catalog, job)
    adapter = await catalog.voices.add_version(job.voice_id, uri="s3://b/v/", sha256={"a": "0"}, rank=16)
    await catalog.jobs.request_cancel(job.id)
    ended = await catalog.jobs.complete(taken, adapter.version)
    assert (ended.state, ended.version) == (CloneState.CANCELLED, None)
    assert (await catalog.voices.get(job.voice_id)).version == 0


async def test_a_job_that_is_over_cannot_be_cancelled(catalog: Catalog, job: CloneJob) -> None:
    await completed(catalog, job)
    with pytest.raises(Conflict, match="over already: completed"):
        await catalog.jobs.request_cancel(job.id)


async def test_a_job_given_back_is_the_next_ones_at_once(catalog: Catalog, job: CloneJob) -> None:
    await catalog.jobs.give_back(await claimed(catalog, job))
    assert (await claimed(catalog, job)).attempt == 2


async def test_stalled_jobs_are_those_that_nobody_has_held_for_a_while(
    catalog: Catalog, job: CloneJob, clock: WallClock
) -> None:
    assert await catalog.jobs.stalled(for_s=30) == []
    clock.advance(31)
    assert await catalog.jobs.stalled(for_s=30) == [(job.id, "standin")]
    taken = await claimed(catalog, job)
    assert await catalog.jobs.stalled(for_s=30) == []
    clock.advance(CLAIM_S + 31)
    assert await catalog.jobs.stalled(for_s=30) == [(job.id, "standin")]
    await catalog.jobs.finish(taken, CloneState.CANCELLED)
    assert await catalog.jobs.stalled(for_s=30) == []


async def test_a_finished_job_is_unannounced_until_its_webhook_is_heard(
    catalog: Catalog, job: CloneJob, clock: WallClock
) -> None:
    since = clock()
    assert await catalog.jobs.unannounced(since=since) == []
    error = JobError(code="gate_failed", message="head silence")
    failed = await catalog.jobs.finish(await claimed(catalog, job), CloneState.FAILED, error=error)
    assert await catalog.jobs.unannounced(since=since) == [(failed.id, failed.finished_at)]
    await catalog.jobs.announced(job.id)
    assert await catalog.jobs.unannounced(since=since) == []


async def test_a_job_that_never_was_is_not_found(catalog: Catalog) -> None:
    with pytest.raises(NotFound, match="'nope'"):
        await catalog.jobs.get("nope")
    with pytest.raises(NotFound):
        await catalog.jobs.request_cancel("nope")
    assert await catalog.jobs.claim("nope") is None
