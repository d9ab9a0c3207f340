"""Usage accounting in SQL: sessions and chapters as they were recorded, clone jobs from their own rows.

A record is written as a whole, however often, and so counts once. Costs follow from a price table; a budget is monthly.
Visibility is the tenant's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Literal, get_args

from sqlalchemy import case, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from app.platform.database import Database
from app.platform.projects import EVERYONE, Tenant
from app.platform.settings import PriceSettings
from app.platform.tables import JobRow, UsageRow

UsageKind = Literal["speech", "narration"]
Dimension = Literal["day", "project", "key", "voice"]
DIMENSIONS: tuple[Dimension, ...] = get_args(Dimension)


@dataclass(frozen=True)
class UsageRecord:
    """All that a session, or a chapter of a narration, has used so far. `at` is its beginning."""

    id: str
    at: datetime
    project_id: str
    key_id: str | None
    voice_id: str
    kind: UsageKind
    characters: int
    audio_s: float
    gpu_s: float = 0.0

    def row(self) -> dict[str, Any]:
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "at"}
        return {**values, "day": self.at.astimezone(UTC).date().isoformat()}


@dataclass
class Use:
    """A sum of use. `gpu_s` is of clone jobs, and of the places that narrations took."""

    utterances: int = 0
    jobs: int = 0
    characters: int = 0
    audio_s: float = 0.0
    gpu_s: float = 0.0

    def add(self, other: Use) -> None:
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))

    def usd(self, prices: PriceSettings) -> float:
        usd = self.characters / 1e6 * prices.usd_per_million_characters
        usd += self.audio_s / 3600 * prices.usd_per_audio_hour
        usd += self.gpu_s / 3600 * prices.usd_per_gpu_hour
        return round(usd, 6)


async def write_usage(connection: AsyncConnection, records: Iterable[UsageRecord]) -> None:
    """Write records in the caller's transaction. What was written of them before only grows: a session that was resumed
    is recorded by both of its front doors, and the former may be the last to write."""
    rows = [record.row() for record in records]
    if not rows:
        return
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    statement = insert(UsageRow).values(rows)
    larger = func.greatest if connection.dialect.name == "postgresql" else func.max
    columns = (UsageRow.characters, UsageRow.audio_s, UsageRow.gpu_s)
    grown = {column.key: larger(column, statement.excluded[column.key]) for column in columns}
    await connection.execute(statement.on_conflict_do_update(index_elements=[UsageRow.id], set_=grown))


class UsageStore:
    """The use that a tenant may see. Every method raises StoreUnavailable when the database does not answer."""

    def __init__(self, database: Database, *, now: Callable[[], datetime], tenant: Tenant = EVERYONE) -> None:
        self._database = database
        self._now = now
        self._tenant = tenant

    def seen_by(self, tenant: Tenant) -> UsageStore:
        return UsageStore(self._database, now=self._now, tenant=tenant)

    async def write(self, records: Iterable[UsageRecord]) -> None:
        async with self._database.writing() as connection:
            await write_usage(connection, records)

    async def summed(self, first: date, last: date, by: Sequence[Dimension]) -> dict[tuple[str | None, ...], Use]:
        """The use from the day `first` to `last`, both included, by the values of `by` in their order."""
        columns = {
            "day": UsageRow.day,
            "project": UsageRow.project_id,
            "key": UsageRow.key_id,
            "voice": UsageRow.voice_id,
        }
        wanted = [columns[dimension] for dimension in by]
        sums = (
            func.sum(case((UsageRow.kind == "speech", 1), else_=0)),
            func.sum(UsageRow.characters),
            func.sum(UsageRow.audio_s),
            func.sum(UsageRow.gpu_s),
        )
        spoken = (
            select(*wanted, *sums)
            .where(
                UsageRow.day >= first.isoformat(),
                UsageRow.day <= last.isoformat(),
                self._tenant.owns(UsageRow.project_id),
            )
            .group_by(*wanted)
        )
        found: dict[tuple[str | None, ...], Use] = defaultdict(Use)
        async with self._database.reading() as connection:
            for row in await connection.execute(spoken):
                utterances, characters, audio_s, gpu_s = row[len(by) :]
                if utterances is not None:  # a sum of nothing
                    use = Use(int(utterances), 0, int(characters), float(audio_s), float(gpu_s))
                    found[tuple(row[: len(by)])].add(use)
            await self._add_jobs(connection, first, last, by, found)
        return found

    async def _add_jobs(
        self,
        connection: AsyncConnection,
        first: date,
        last: date,
        by: Sequence[Dimension],
        found: dict[tuple[str | None, ...], Use],
    ) -> None:
        """Clone jobs by the day they were over; a job is one row, whoever worked on it and however often."""
        begin = datetime.combine(first, time(), UTC)
        end = datetime.combine(last, time(), UTC) + timedelta(days=1)
        jobs = select(JobRow.project_id, JobRow.key_id, JobRow.voice_id, JobRow.started_at, JobRow.finished_at).where(
            JobRow.started_at.is_not(None),
            JobRow.finished_at >= begin,
            JobRow.finished_at < end,
            self._tenant.owns(JobRow.project_id),
        )
        for row in await connection.execute(jobs):
            day = row.finished_at.astimezone(UTC).date().isoformat()
            values = {"day": day, "project": row.project_id, "key": row.key_id, "voice": row.voice_id}
            worked_s = (row.finished_at - row.started_at).total_seconds()
            found[tuple(values[dimension] for dimension in by)].add(Use(jobs=1, gpu_s=max(0.0, worked_s)))

    async def gpu_s_this_month(self) -> float:
        """As `this_month`, with what the jobs have taken that are not over."""
        now = self._now()
        running = select(JobRow.started_at).where(
            JobRow.started_at.is_not(None), JobRow.finished_at.is_(None), self._tenant.owns(JobRow.project_id)
        )
        async with self._database.reading() as connection:
            began = (await connection.scalars(running)).all()
        taken_s = sum((now - started_at).total_seconds() for started_at in began if started_at)
        return (await self.this_month()).gpu_s + taken_s

    async def this_month(self) -> Use:
        """All use since the first day of the month, UTC."""
        today = self._now().astimezone(UTC).date()
        return (await self.summed(today.replace(day=1), today, ())).get((), Use())
