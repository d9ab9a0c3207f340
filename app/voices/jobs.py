"""Clone jobs: claims, progress, outcome. The rows are the truth; a queue's message is a reminder.

A worker claims a job for a while and renews the claim as it works. Each claim has a number, the attempt, and every
change names it: a worker that has lost a job to another can change neither the row nor, since object keys carry the
attempt, any file.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Row, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.errors import Conflict, JobLost, NotFound
from app.platform import claims
from app.platform.database import Database, plain
from app.platform.idempotency import check_age, new_id
from app.platform.jobs import JobError
from app.platform.projects import EVERYONE, Tenant
from app.platform.tables import JobRow, VoiceRow
from app.speech.recipe import CloneConfig
from app.voices.models import CloneJob, CloneKind, CloneState
from app.voices.store import put_in_force


class JobStore:
    """The clone jobs of one database that a tenant has. Every method raises StoreUnavailable when it does not answer.

    Machines that share a database need clocks that agree to within a few seconds (NTP): a claim ends by the clock.
    """

    def __init__(self, database: Database, *, now: Callable[[], datetime], tenant: Tenant = EVERYONE) -> None:
        self._database = database
        self._now = now
        self._tenant = tenant

    async def create(
        self,
        voice_id: str,
        *,
        kind: CloneKind,
        config: CloneConfig,
        webhook_url: str | None = None,
        key_id: str | None = None,
    ) -> CloneJob:
        """A queued job, of its voice's project; that of before where the request is repeated.

        Raises Conflict while another job of the voice is not over.
        """
        job_id = new_id("job-")
        values = {
            "id": job_id,
            "voice_id": voice_id,
            "kind": kind.value,
            "state": CloneState.QUEUED.value,
            "config": config.model_dump(mode="json", exclude_unset=True),
            "attempt": 0,
            "revision": 1,
            "cancel_requested": False,
            "webhook_url": webhook_url,
            "created_at": self._now(),
            "key_id": key_id,
        }
        async with self._database.writing() as connection:
            project_id = select(VoiceRow.project_id).where(VoiceRow.id == voice_id).scalar_subquery()
            active = select(JobRow.id).where(JobRow.voice_id == voice_id, JobRow.finished_at.is_(None))
            made_at = await connection.scalar(select(JobRow.created_at).where(JobRow.id == job_id, self._owned))
            if made_at is None:
                if running := await connection.scalar(active):
                    raise _in_the_way(voice_id, running)
                try:
                    await connection.execute(insert(JobRow).values(**values, project_id=project_id))
                except IntegrityError:
                    raise _in_the_way(voice_id, "made at this moment") from None
            else:
                check_age(made_at, self._now())
        return await self.get(job_id)

    async def get(self, job_id: str) -> CloneJob:
        """Raises NotFound."""
        async with self._database.reading() as connection:
            wanted = select(*JobRow.__table__.c).where(JobRow.id == job_id, self._owned)
            row = (await connection.execute(wanted)).first()
            if row is None:
                raise NotFound(f"there is no job {job_id[:64]!r}; GET /v1/clones lists them", param="id")
            job = _job(row)
            if job.state is not CloneState.QUEUED:
                return job
            return job.model_copy(update={"ahead": await connection.scalar(claims.ahead(JobRow, row.created_at))})

    @property
    def _owned(self) -> ColumnElement[bool]:
        return self._tenant.owns(JobRow.project_id)

    async def all(self, *, voice_id: str | None = None, limit: int = 100) -> list[CloneJob]:
        """The newest jobs, of one voice or of all."""
        statement = select(*JobRow.__table__.c).where(self._owned)
        statement = statement.order_by(JobRow.created_at.desc(), JobRow.id).limit(limit)
        if voice_id is not None:
            statement = statement.where(JobRow.voice_id == voice_id)
        async with self._database.reading() as connection:
            return [_job(row) for row in await connection.execute(statement)]

    async def claim(self, job_id: str) -> CloneJob | None:
        """Take a job that no process holds: the next attempt is the caller's. None when it is another's, or over."""
        now = self._now()
        started_at = func.coalesce(JobRow.started_at, now)
        taking = claims.claim(JobRow, JobRow.id == job_id, now, revision=JobRow.revision + 1, started_at=started_at)
        async with self._database.writing() as connection:
            row = (await connection.execute(taking)).first()
        return _job(row) if row else None

    async def renew(self, job: CloneJob) -> bool:
        """Keep the claim; returns whether the job is to be cancelled. Raises JobLost."""
        async with self._database.writing() as connection:
            row = await self._changed(connection, job, lease_expires_at=claims.lease_end(self._now()))
        return bool(row.cancel_requested)

    async def update(self, job: CloneJob, **changes: Any) -> CloneJob:
        """Write down how far the job is: state, progress, report, gate. Raises JobLost."""
        return _job(await self._change(job, **{name: plain(value) for name, value in changes.items()}))

    async def finish(self, job: CloneJob, state: CloneState, *, error: JobError | None = None) -> CloneJob:
        """End the job without a new version; the claim ends with it. Raises JobLost."""
        ended = await self._change(
            job, state=state.value, error=plain(error), finished_at=self._now(), lease_expires_at=None
        )
        return _job(ended)

    async def complete(self, job: CloneJob, version: int) -> CloneJob:
        """End the job and put its version in force, both or neither; a job asked to stop ends cancelled instead.

        Raises JobLost, NotFound for a deleted voice.
        """
        now = self._now()
        async with self._database.writing() as connection:
            row = await self._changed(
                connection,
                job,
                state=CloneState.COMPLETED.value,
                version=version,
                finished_at=now,
                lease_expires_at=None,
                revision=JobRow.revision + 1,
            )
            if row.cancel_requested:
                stopped = {"state": CloneState.CANCELLED.value, "version": None}
                await connection.execute(update(JobRow).where(JobRow.id == job.id).values(**stopped))
            else:
                await put_in_force(connection, job.voice_id, version, now)
        return await self.get(job.id)

    async def give_back(self, job: CloneJob) -> None:
        """End the claim and leave the job to the next worker, which goes on from what is stored. Raises JobLost."""
        await self._change(job, state=CloneState.QUEUED.value, lease_expires_at=None)
        await self.end_cancelled()

    async def _change(self, job: CloneJob, **changes: Any) -> Row[Any]:
        async with self._database.writing() as connection:
            return await self._changed(connection, job, revision=JobRow.revision + 1, **changes)

    async def _changed(self, connection: AsyncConnection, job: CloneJob, **changes: Any) -> Row[Any]:
        """The row after the change, which only its attempt can make."""
        row = (await connection.execute(claims.change(JobRow, JobRow.id == job.id, job.attempt, **changes))).first()
        if row is None:
            raise JobLost(f"job {job.id} is not attempt {job.attempt}'s any more")
        return row

    async def request_cancel(self, job_id: str) -> CloneJob:
        """Ask the worker to stop; a job without one is cancelled at once. Raises NotFound, Conflict when over."""
        await self.get(job_id)
        async with self._database.writing() as connection:
            await connection.execute(claims.request_cancel(JobRow, job_id))
        await self.end_cancelled()
        job = await self.get(job_id)
        if not job.cancel_requested:
            raise Conflict(f"job {job_id} is over already: {job.state.value}", param="id")
        return job

    async def end_cancelled(self) -> None:
        """End every job that was asked to stop and that no process holds."""
        now = self._now()
        async with self._database.writing() as connection:
            await connection.execute(claims.end_cancelled(JobRow, claims.unheld(JobRow, now), now))

    async def stalled(self, *, for_s: float) -> list[tuple[str, str]]:
        """Jobs, each with its voice's model, that are not over and have been unclaimed for so long: message or worker
        is lost."""
        limit = self._now() - timedelta(seconds=for_s)
        statement = (
            select(JobRow.id, VoiceRow.model)
            .join(VoiceRow, VoiceRow.id == JobRow.voice_id)
            .where(claims.stalled(JobRow, JobRow.created_at, limit))
            .order_by(JobRow.created_at)
        )
        async with self._database.reading() as connection:
            return [(row.id, row.model) for row in await connection.execute(statement)]

    async def unannounced(self, *, since: datetime) -> list[tuple[str, datetime]]:
        """Jobs that ended since then, and when, whose webhook has not been heard."""
        async with self._database.reading() as connection:
            return [
                (row.id, row.finished_at) for row in await connection.execute(claims.unannounced_since(JobRow, since))
            ]

    async def cancelled(self, *, since: datetime) -> list[tuple[str, str]]:
        """The voices and ids of jobs that were cancelled since then."""
        statement = select(JobRow.voice_id, JobRow.id).where(
            JobRow.state == CloneState.CANCELLED.value, JobRow.finished_at >= since
        )
        async with self._database.reading() as connection:
            return [(row.voice_id, row.id) for row in await connection.execute(statement)]

    async def announced(self, job_id: str) -> None:
        """The webhook of a job has been heard, or never will be."""
        async with self._database.writing() as connection:
            await connection.execute(claims.announced(JobRow, JobRow.id == job_id, self._now()))


def _in_the_way(voice_id: str, job_id: str) -> Conflict:
    return Conflict(
        f"the voice {voice_id} has a job that is not over ({job_id}); wait for it, or cancel it", param="voice"
    )


def _job(row: Row[Any]) -> CloneJob:
    fields = {name: getattr(row, name) for name in CloneJob.model_fields if name != "ahead"}
    return CloneJob.model_validate(fields)
