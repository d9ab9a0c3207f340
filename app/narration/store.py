"""Narrations: handed in, cancelled, resumed, announced. The rows are the truth; the work is in `narration.steps`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import String, cast, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.errors import Conflict, NotFound
from app.narration.models import Narration, NarrationOptions, NarrationSource, NarrationState, StepKind, TextFinding
from app.narration.rows import (
    CASTING,
    PLAN_NUMBER,
    built,
    end_cancelled,
    new_step,
    open_steps,
    read_chapters,
    read_narration,
    renewed,
)
from app.platform import claims
from app.platform.database import Database, plain
from app.platform.idempotency import check_age
from app.platform.projects import EVERYONE, Tenant
from app.platform.tables import NarrationRow, StepRow
from app.speech.choices import NarrationFormat
from app.speech.voices import Voice


class NarrationStore:
    """The narrations of one database that a tenant has. Every method raises StoreUnavailable when it does not answer.

    Machines that share a database need clocks that agree to within a few seconds (NTP): a claim ends by the clock.
    """

    def __init__(self, database: Database, *, now: Callable[[], datetime], tenant: Tenant = EVERYONE) -> None:
        self._database = database
        self._now = now
        self._tenant = tenant

    # For submissions.

    async def create(
        self,
        *,
        narration_id: str,
        voice: str,
        cast: Mapping[str, str],
        voices: Mapping[str, Voice],
        model: str,
        format: NarrationFormat,
        options: NarrationOptions,
        source: NarrationSource,
        title: str,
        findings: tuple[TextFinding, ...] = (),
        webhook_url: str | None = None,
        key_id: str | None = None,
    ) -> Narration:
        """A queued narration. `voices` has every name in `voice`, `cast` and the text, and pins what it meant."""
        now = self._now()
        values = {
            "id": narration_id,
            "state": NarrationState.QUEUED.value,
            "voice": voice,
            "cast": dict(cast),
            "model": model,
            "voices": plain(voices),
            "format": format.value,
            "options": options.model_dump(mode="json", exclude_unset=True),
            "source": plain(source),
            "title": title,
            "takes": {},
            "revision": 1,
            "cancel_requested": False,
            "findings": plain(findings),
            "webhook_url": webhook_url,
            "created_at": now,
            "project_id": self._tenant.project,
            "key_id": key_id,
        }
        async with self._database.writing() as connection:
            await connection.execute(insert(NarrationRow).values(**values))
            await connection.execute(insert(StepRow).values(**new_step(narration_id, StepKind.PLAN, PLAN_NUMBER, now)))
        return await self.get(narration_id)

    async def made(self, narration_id: str) -> Narration | None:
        """What a request that is repeated has made; None for a new id. Raises InvalidRequest for one of days ago."""
        try:
            narration = await self.get(narration_id)
        except NotFound:
            return None
        check_age(narration.created_at, self._now())
        return narration

    async def get(self, narration_id: str) -> Narration:
        """Raises NotFound."""
        async with self._database.reading() as connection:
            return await read_narration(connection, narration_id, self._tenant)

    async def all(self, *, limit: int = 100) -> list[Narration]:
        """The newest narrations."""
        newest = select(*NarrationRow.__table__.c).where(self._tenant.owns(NarrationRow.project_id))
        newest = newest.order_by(NarrationRow.created_at.desc(), NarrationRow.id)
        async with self._database.reading() as connection:
            rows = (await connection.execute(newest.limit(limit))).all()
            chapters = await read_chapters(connection, [row.id for row in rows])
        return [built(row, chapters[row.id]) for row in rows]

    async def spoken_by(self, voice_id: str, *, limit: int) -> list[str]:
        """The ids of the newest narrations that a voice speaks in."""
        named = cast(NarrationRow.voices, String).contains(f'"{voice_id}"', autoescape=True)
        found = select(NarrationRow.id).where(named, self._tenant.owns(NarrationRow.project_id))
        async with self._database.reading() as connection:
            return list(await connection.scalars(found.order_by(NarrationRow.created_at.desc()).limit(limit)))

    async def delete(self, narration_id: str) -> None:
        """Forget a narration that is over; its objects are the caller's to delete. Raises NotFound, Conflict."""
        over = (NarrationRow.id == narration_id) & NarrationRow.finished_at.is_not(None)
        async with self._database.writing() as connection:
            await read_narration(connection, narration_id, self._tenant)
            deleted = await connection.execute(delete(NarrationRow).where(over))
            if not deleted.rowcount:
                narration = await read_narration(connection, narration_id)
                raise Conflict(f"narration {narration_id} is {narration.state.value}; cancel it first", param="id")

    async def request_cancel(self, narration_id: str) -> Narration:
        """Ask the workers to stop; with none at work it is cancelled at once. Raises NotFound, Conflict when over."""
        async with self._database.writing() as connection:
            await read_narration(connection, narration_id, self._tenant)
            await connection.execute(claims.request_cancel(NarrationRow, narration_id))
        await self.end_cancelled()
        narration = await self.get(narration_id)
        if not narration.cancel_requested:
            raise Conflict(f"narration {narration_id} is over already: {narration.state.value}", param="id")
        return narration

    async def resume(
        self,
        narration_id: str,
        *,
        voice: str | None = None,
        cast: Mapping[str, str] | None = None,
        voices: Mapping[str, Voice] | None = None,
        findings: tuple[TextFinding, ...] = (),
    ) -> Narration:
        """Go on with one that failed or was cancelled, perhaps with other voices; what is rendered stays rendered.

        `voices` is as at creation, and given whenever `voice` or `cast` are; `findings` on them replace those of the
        same codes. Raises NotFound, Conflict.
        """
        changes: dict[str, Any] = {"voice": voice, "cast": cast and dict(cast), "voices": voices and plain(voices)}
        changes = {name: value for name, value in changes.items() if value is not None}
        async with self._database.writing() as connection:
            if changes:
                changes["findings"] = plain(renewed(await read_narration(connection, narration_id), CASTING, findings))
            narration = await self._reopened(
                connection, narration_id, (NarrationState.FAILED, NarrationState.CANCELLED), changes
            )
            # The mastering always: one that was cancelled as it ended has left no file.
            again = StepRow.failed | StepRow.finished_at.is_(None) | (StepRow.kind == StepKind.MASTER.value)
            if changes:  # a finished chapter may have other voices now; what stays the same is found in the store
                again |= StepRow.kind != StepKind.PLAN.value
            await open_steps(connection, narration_id, again, self._now())
            return await read_narration(connection, narration.id)

    async def regenerate(self, narration_id: str, chapters: Mapping[int, int]) -> Narration:
        """Have segments of a finished narration rendered again: numbers to the chapters they are in.

        Raises NotFound, Conflict unless it is completed.
        """
        async with self._database.writing() as connection:
            narration = await self._reopened(connection, narration_id, (NarrationState.COMPLETED,), {})
            takes = {**narration.takes, **{segment: narration.takes.get(segment, 0) + 1 for segment in chapters}}
            await connection.execute(
                update(NarrationRow)
                .where(NarrationRow.id == narration_id)
                .values(takes={str(number): take for number, take in takes.items()})
            )
            again = StepRow.number.in_(set(chapters.values())) | (StepRow.kind == StepKind.MASTER.value)
            await open_steps(connection, narration_id, again, self._now())
            return await read_narration(connection, narration_id)

    async def _reopened(
        self,
        connection: AsyncConnection,
        narration_id: str,
        states: tuple[NarrationState, ...],
        changes: Mapping[str, Any],
    ) -> Narration:
        await read_narration(connection, narration_id, self._tenant)
        reopened = await connection.execute(
            update(NarrationRow)
            .where(NarrationRow.id == narration_id, NarrationRow.state.in_([state.value for state in states]))
            .values(
                state=NarrationState.QUEUED.value,
                cancel_requested=False,
                error=None,
                finished_at=None,
                webhook_done_at=None,
                revision=NarrationRow.revision + 1,
                **changes,
            )
        )
        narration = await read_narration(connection, narration_id)
        if not reopened.rowcount:
            wanted = " or ".join(state.value for state in states)
            raise Conflict(
                f"narration {narration_id} is {narration.state.value}; this needs one that is {wanted}", param="id"
            )
        return narration

    # For maintenance.

    async def end_cancelled(self) -> None:
        """End every narration that was asked to stop and that no process works on."""
        async with self._database.writing() as connection:
            await end_cancelled(connection, self._now())

    async def stalled(self, *, for_s: float) -> list[tuple[str, bool]]:
        """The ids of narrations with a step that has been unclaimed for so long, the oldest first.

        Each with whether a process works on another step of it.
        """
        now = self._now()
        limit = now - timedelta(seconds=for_s)
        of_it = select(StepRow.number).where(StepRow.narration_id == NarrationRow.id, StepRow.finished_at.is_(None))
        waiting = of_it.where(claims.stalled(StepRow, StepRow.released_at, limit))
        statement = (
            select(NarrationRow.id, of_it.where(StepRow.lease_expires_at >= now).exists().label("held"))
            .where(NarrationRow.finished_at.is_(None), waiting.exists())
            .order_by(NarrationRow.created_at)
        )
        async with self._database.reading() as connection:
            return [(row.id, row.held) for row in await connection.execute(statement)]

    async def existing(self) -> set[str]:
        """The ids of all narrations."""
        async with self._database.reading() as connection:
            return set(await connection.scalars(select(NarrationRow.id)))

    async def unannounced(self, *, since: datetime) -> list[tuple[str, datetime]]:
        """Narrations that ended since then, and when, whose webhook has not been heard."""
        statement = claims.unannounced_since(NarrationRow, since)
        async with self._database.reading() as connection:
            return [(row.id, row.finished_at) for row in await connection.execute(statement)]

    async def to_announce(self, narration_id: str) -> Narration | None:
        """A narration that is over and whose webhook has not been heard; None for any other."""
        wanted = select(NarrationRow.id).where(NarrationRow.id == narration_id, claims.unannounced(NarrationRow))
        async with self._database.reading() as connection:
            found = await connection.scalar(wanted)
            return await read_narration(connection, narration_id) if found else None

    async def announced(self, narration: Narration) -> None:
        """The webhook of a narration has been heard, or never will be; one that has changed since will tell again."""
        unchanged = (NarrationRow.id == narration.id) & (NarrationRow.revision == narration.revision)
        async with self._database.writing() as connection:
            await connection.execute(claims.announced(NarrationRow, unchanged, self._now()))
