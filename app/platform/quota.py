"""Quotas of a project, counted in SQL: voices, jobs that are not over, stored bytes.

Two requests at one moment may together pass a limit by one; none is passed for long.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from sqlalchemy import func, select

from app.errors import QuotaExceeded, RateLimited
from app.platform.database import Database
from app.platform.limit_values import Limits
from app.platform.tables import JobRow, NarrationRow, SampleRow, VoiceRow

JOB_RETRY_S = 60.0


@dataclass(frozen=True)
class Quota:
    """Of one project. Every method raises StoreUnavailable when the database does not answer."""

    database: Database
    project: str
    limits: Limits
    check_job: Callable[[], Awaitable[object]]
    """Raises QuotaExceeded where the month's budget or GPU seconds are spent."""

    async def check_voices(self) -> None:
        """Raises QuotaExceeded where there is no room for another voice."""
        if self.limits.voices is None:
            return
        living = select(func.count()).where(VoiceRow.project_id == self.project, VoiceRow.deleted_at.is_(None))
        async with self.database.reading() as connection:
            have = await connection.scalar(living) or 0
        if have >= self.limits.voices:
            raise QuotaExceeded(f"the project has {have} voices, the most it may have; delete one first")

    async def check_jobs(self) -> None:
        """Raises RateLimited where too many jobs are not over, and what `check_job` does."""
        await self.check_job()
        if self.limits.queued_jobs is None:
            return
        have = 0
        async with self.database.reading() as connection:
            for table in (JobRow, NarrationRow):
                waiting = select(func.count()).where(table.project_id == self.project, table.finished_at.is_(None))
                have += await connection.scalar(waiting) or 0
        if have >= self.limits.queued_jobs:
            raise RateLimited(
                f"the project has {have} jobs that are not over, the most it may have; wait for one, or cancel it",
                retry_after_s=JOB_RETRY_S,
            )

    async def check_bytes(self, more: int) -> None:
        """Raises QuotaExceeded where `more` would not fit."""
        limit = self.limits.stored_bytes
        if limit is None:
            return
        have = await self.stored_bytes()
        if have + more > limit:
            raise QuotaExceeded(
                f"the project stores {have} bytes and may store {limit}; {more} more do not fit: delete something first"
            )

    async def stored_bytes(self) -> int:
        """Of recordings, of texts that were handed in, and of finished narrations."""
        recordings = (
            select(func.coalesce(func.sum(SampleRow.size_bytes), 0))
            .join(VoiceRow, VoiceRow.id == SampleRow.voice_id)
            .where(VoiceRow.project_id == self.project)
        )
        source, output = (column["size_bytes"].as_integer() for column in (NarrationRow.source, NarrationRow.output))
        narrations = select(func.coalesce(func.sum(source + func.coalesce(output, 0)), 0)).where(
            NarrationRow.project_id == self.project
        )
        async with self.database.reading() as connection:
            return int(await connection.scalar(recordings) or 0) + int(await connection.scalar(narrations) or 0)
