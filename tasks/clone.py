"""Clone and polish jobs: recordings in, a published voice out, however often a process dies on the way.

A job is claimed with an attempt number, its steps are done (`clone_steps`), and the voice points to the new version in
the same transaction that ends the job; a run that has lost its claim stops. What is finished lies in the object store,
and the next attempt goes on from there.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from contextlib import suppress
from pathlib import Path

from app.catalog import Catalog
from app.errors import JobLost, NotFound, TrainingFailed
from app.platform.claimed_run import ClaimedRun
from app.platform.jobs import JobError, under_claim
from app.platform.object_store import ObjectStore
from app.platform.retry import retry_store
from app.platform.settings import Settings
from app.voices.models import CloneJob, CloneState
from tasks.archive import JobArchive
from tasks.clone_steps import CloneSteps

log = logging.getLogger(__name__)


async def work_on(settings: Settings, job_id: str) -> CloneJob | None:
    """Claim the job and run it to its end; None when another process holds it, or another attempt continues it."""
    catalog = Catalog(settings.database, pepper=settings.key_pepper)
    store = ObjectStore(settings.store)
    try:
        job = await retry_store(lambda: catalog.jobs.claim(job_id))
        if job is None:
            log.info("job not taken", extra={"job": job_id})
            return None
        log.info("job taken", extra={"job": job_id, "attempt": job.attempt})
        return await JobRun(settings, catalog, store, job).to_the_end()
    finally:
        store.close()
        await catalog.aclose()


class JobRun(ClaimedRun[CloneJob]):
    """One attempt at one job."""

    noun = "job"

    def __init__(self, settings: Settings, catalog: Catalog, store: ObjectStore, job: CloneJob) -> None:
        directory = settings.data_dir / "jobs" / f"{job.id}-{job.attempt}"
        limit = settings.cloning.max_attempts
        super().__init__(directory, {"job": job.id, "attempt": job.attempt}, is_last=job.attempt >= limit)
        self._jobs = catalog.jobs
        self._job = job
        self._max_attempts = limit
        self._archive = JobArchive(store, job)
        self._steps = CloneSteps(settings, catalog, store, job, self._archive, directory)

    async def renew(self) -> bool:
        return await self._jobs.renew(self._job)

    async def attempt(self) -> CloneJob:
        version = await under_claim(self.renew, self._work())
        try:
            ended = await retry_store(lambda: self._jobs.complete(self._job, version))
        except NotFound:  # the voice was deleted at this moment
            return await self.cancel()
        await self._tidy_up(ended.state)
        log.info("job over", extra={"job": self._job.id, "state": ended.state.value, "version": ended.version})
        return ended

    async def cancel(self) -> CloneJob:
        return await self._finish(CloneState.CANCELLED)

    async def fail(self, error: JobError) -> CloneJob:
        return await self._finish(CloneState.FAILED, error)

    async def give_back(self, *, failure: bool = False) -> None:
        await self._steps.keep_newest_checkpoint()
        with suppress(JobLost):
            await retry_store(lambda: self._jobs.give_back(self._job))

    async def _work(self) -> int:
        if self._job.attempt > self._max_attempts:
            raise TrainingFailed(f"{self._job.attempt - 1} workers died over this job; see their logs")
        await asyncio.to_thread(_sweep, self.directory, await self._living_attempts())
        self.directory.mkdir(parents=True)
        return await self._steps.run()

    async def _living_attempts(self) -> set[str]:
        """The directories of attempts that may be going on; others are what killed processes left."""
        directories = [path.name for path in self.directory.parent.glob("job-*")]
        living = set()
        for name in directories:
            job_id, _, attempt = name.rpartition("-")
            with suppress(NotFound):
                job = await self._jobs.get(job_id)
                if not job.state.over and str(job.attempt) == attempt:
                    living.add(name)
        return living

    async def _finish(self, state: CloneState, error: JobError | None = None) -> CloneJob:
        await self._tidy_up(state)
        ended = await retry_store(lambda: self._jobs.finish(self._job, state, error=error))
        log.info("job over", extra={"job": self._job.id, "state": ended.state.value})
        return ended

    async def _tidy_up(self, state: CloneState) -> None:
        """Nothing of an ended job stays in the store but its adapter: in force, or failed and to be looked into."""
        kept = None if state is CloneState.CANCELLED else f"{self._archive.attempt_prefix}adapter/"
        try:
            await self._archive.clear(kept=kept)
        except Exception as error:  # no reason for a job not to end: maintenance deletes them later
            log.warning("job's files left", extra={"job": self._job.id}, exc_info=error)


def _sweep(directory: Path, living: set[str]) -> None:
    """Remove what killed attempts left beside `directory`: users' recordings."""
    for path in directory.parent.glob("job-*"):
        if path.name not in living or path == directory:
            shutil.rmtree(path, ignore_errors=True)
