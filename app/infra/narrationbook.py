"""Narrations and their steps: what is to be done, who does it, how it ended. The rows are the truth.

A narration is done in steps: its plan, then its chapters in any order, then the mastering. A worker claims the next
step that is nobody's, for a while, and renews the claim as it works; each claim has a number, the attempt, and every
change of a step names it, as in `app.infra.jobbook`. A message of the queue names no step: it says that there is work.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pydantic import BaseModel
from sqlalchemy import ColumnElement, Row, and_, delete, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.cloning import JobError
from app.core.errors import Conflict, JobLost, NotFound
from app.core.models import Voice
from app.core.narration import (
    ChapterProgress,
    Narration,
    NarrationFormat,
    NarrationOptions,
    NarrationOutput,
    NarrationSource,
    NarrationState,
    TextFinding,
)
from app.infra.database import Database
from app.infra.jobbook import CLAIM_S
from app.infra.tables import NarrationRow, StepRow
from app.infra.voicebook import voice_prefix

ID_PREFIX = "nar-"
CASTING = frozenset({"uncast_character", "language"})
"""The codes of findings that are about voices …"""
MASTERED = frozenset({"loudness_missed"})
"""… and of those about the finished file."""

PLAN = 0
MASTERING = 1_000_000
"""The number of the last step; chapters count from 1."""


def new_narration_id() -> str:
    return f"{ID_PREFIX}{secrets.token_hex(8)}"


def narration_prefix(narration_id: str) -> str:
    """Where everything of a narration lies in the object store, but for its segments."""
    return f"narrations/{narration_id}/"


def segment_key(voice: Voice, digest: str) -> str:
    """Where a segment lies: with the voice, so that it goes when the voice is deleted. Add `.flac` or `.json`."""
    return f"{voice_prefix(voice.id)}segments/{digest}"


@dataclass(frozen=True)
class Step:
    """A claimed step of a narration, as it was when it was claimed."""

    narration: Narration
    number: int
    attempt: int


class NarrationBook:
    """The narrations of one database. Every method raises StoreUnavailable when it does not answer.

    Machines that share a database need clocks that agree to within a few seconds (NTP): a claim ends by the clock.
    """

    def __init__(self, database: Database, *, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now

    # For whoever hands texts in.

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
    ) -> Narration:
        """A queued narration. `voices` has every name in `voice`, `cast` and the text, and pins what it meant."""
        now = self._now()
        values = {
            "id": narration_id,
            "state": NarrationState.QUEUED.value,
            "voice": voice,
            "cast": dict(cast),
            "model": model,
            "voices": _plain(voices),
            "format": format.value,
            "options": options.model_dump(mode="json", exclude_unset=True),
            "source": _plain(source),
            "title": title,
            "takes": {},
            "revision": 1,
            "cancel_requested": False,
            "findings": _plain(findings),
            "webhook_url": webhook_url,
            "created_at": now,
        }
        async with self._database.writing() as connection:
            await connection.execute(insert(NarrationRow).values(**values))
            await connection.execute(insert(StepRow).values(**_new_step(narration_id, PLAN, now)))
        return await self.get(narration_id)

    async def get(self, narration_id: str) -> Narration:
        """Raises NotFound."""
        async with self._database.reading() as connection:
            return await _narration(connection, narration_id)

    async def all(self, *, limit: int = 100) -> list[Narration]:
        """The newest narrations."""
        newest = select(*NarrationRow.__table__.c).order_by(NarrationRow.created_at.desc(), NarrationRow.id)
        async with self._database.reading() as connection:
            rows = (await connection.execute(newest.limit(limit))).all()
            chapters = await _chapters(connection, [row.id for row in rows])
        return [_built(row, chapters[row.id]) for row in rows]

    async def delete(self, narration_id: str) -> None:
        """Forget a narration that is over; its objects are the caller's to delete. Raises NotFound, Conflict."""
        async with self._database.writing() as connection:
            narration = await _narration(connection, narration_id)
            if not narration.state.over:
                raise Conflict(f"narration {narration_id} is {narration.state.value}; cancel it first", param="id")
            await connection.execute(delete(NarrationRow).where(NarrationRow.id == narration_id))

    async def request_cancel(self, narration_id: str) -> Narration:
        """Ask the workers to stop; with none at work it is cancelled at once. Raises NotFound, Conflict when over."""
        async with self._database.writing() as connection:
            await connection.execute(
                update(NarrationRow)
                .where(NarrationRow.id == narration_id, NarrationRow.finished_at.is_(None))
                .values(cancel_requested=True, revision=NarrationRow.revision + 1)
            )
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
        changes: dict[str, Any] = {"voice": voice, "cast": cast and dict(cast), "voices": voices and _plain(voices)}
        changes = {name: value for name, value in changes.items() if value is not None}
        async with self._database.writing() as connection:
            if changes:
                changes["findings"] = _plain(_renewed(await _narration(connection, narration_id), CASTING, findings))
            narration = await self._reopened(
                connection, narration_id, (NarrationState.FAILED, NarrationState.CANCELLED), changes
            )
            again = StepRow.failed | StepRow.finished_at.is_(None)
            if changes:  # a finished chapter may have other voices now; what stays the same is found in the store
                again |= StepRow.number > PLAN
            await self._open_steps(connection, narration_id, again)
            return await _narration(connection, narration.id)

    async def regenerate(self, narration_id: str, *, segment: int, chapter: int) -> Narration:
        """Have one segment of a finished narration read anew. Raises NotFound, Conflict unless it is completed."""
        async with self._database.writing() as connection:
            narration = await self._reopened(connection, narration_id, (NarrationState.COMPLETED,), {})
            takes = {**narration.takes, segment: narration.takes.get(segment, 0) + 1}
            await connection.execute(
                update(NarrationRow)
                .where(NarrationRow.id == narration_id)
                .values(takes={str(number): take for number, take in takes.items()})
            )
            await self._open_steps(connection, narration_id, StepRow.number.in_((chapter, MASTERING)))
            return await _narration(connection, narration_id)

    async def _reopened(
        self,
        connection: AsyncConnection,
        narration_id: str,
        states: tuple[NarrationState, ...],
        changes: Mapping[str, Any],
    ) -> Narration:
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
        narration = await _narration(connection, narration_id)
        if not reopened.rowcount:
            wanted = " or ".join(state.value for state in states)
            raise Conflict(
                f"narration {narration_id} is {narration.state.value}; this needs one that is {wanted}", param="id"
            )
        return narration

    async def _open_steps(self, connection: AsyncConnection, narration_id: str, which: ColumnElement[bool]) -> None:
        await connection.execute(
            update(StepRow)
            .where(StepRow.narration_id == narration_id, which)
            .values(failed=False, finished_at=None, lease_expires_at=None, released_at=self._now())
        )

    # For whoever does the work.

    async def claim(self, narration_id: str) -> Step | None:
        """Take the next step that is nobody's; None when there is none now, or the narration is over."""
        now = self._now()
        async with self._database.writing() as connection:
            for number in await self._ready(connection, narration_id, now):
                claimed = await connection.execute(
                    update(StepRow)
                    .where(
                        StepRow.narration_id == narration_id,
                        StepRow.number == number,
                        StepRow.finished_at.is_(None),
                        _unheld(now),
                    )
                    .values(attempt=StepRow.attempt + 1, lease_expires_at=now + timedelta(seconds=CLAIM_S))
                    .returning(StepRow.attempt)
                )
                if (attempt := claimed.scalar()) is None:
                    continue  # another was faster
                await connection.execute(
                    update(NarrationRow)
                    .where(NarrationRow.id == narration_id)
                    .values(
                        state=_state_of(number).value,
                        started_at=func.coalesce(NarrationRow.started_at, now),
                        revision=NarrationRow.revision + 1,
                    )
                )
                return Step(await _narration(connection, narration_id), number, attempt)
        return None

    async def _ready(self, connection: AsyncConnection, narration_id: str, now: datetime) -> list[int]:
        """The numbers of the steps that can be done now and that nobody holds."""
        active = select(NarrationRow.id).where(
            NarrationRow.id == narration_id, NarrationRow.finished_at.is_(None), ~NarrationRow.cancel_requested
        )
        # The narration's row is locked first, here and in every change: two workers see each other's steps.
        if await connection.scalar(active.with_for_update()) is None:
            return []
        unfinished = select(StepRow.number, StepRow.lease_expires_at).where(
            StepRow.narration_id == narration_id, StepRow.finished_at.is_(None)
        )
        steps = (await connection.execute(unfinished.order_by(StepRow.number))).all()
        first = steps[0].number if steps else MASTERING
        waiting = first if first in (PLAN, MASTERING) else None
        return [
            step.number
            for step in steps
            if (step.number == waiting if waiting is not None else step.number != MASTERING)
            and (step.lease_expires_at is None or step.lease_expires_at < now)
        ]

    async def renew(self, step: Step) -> bool:
        """Keep the claim; returns whether somebody asked for the narration to be cancelled. Raises JobLost."""
        async with self._database.writing() as connection:
            await self._change(connection, step, lease_expires_at=self._now() + timedelta(seconds=CLAIM_S))
            asked = select(NarrationRow.cancel_requested).where(NarrationRow.id == step.narration.id)
            return bool(await connection.scalar(asked))

    async def planned(
        self,
        step: Step,
        chapters: tuple[ChapterProgress, ...],
        *,
        script_key: str,
        title: str,
        findings: tuple[TextFinding, ...],
    ) -> Narration:
        """End the plan: there are chapters to render now. Raises JobLost."""
        now = self._now()
        async with self._database.writing() as connection:
            await self._touch(
                connection,
                step,
                state=NarrationState.RENDERING.value,
                script_key=script_key,
                title=title,
                findings=_plain(findings),
            )
            await self._change(connection, step, finished_at=now, lease_expires_at=None)
            later = (StepRow.narration_id == step.narration.id) & (StepRow.number > PLAN)
            await connection.execute(delete(StepRow).where(later))
            rows = [_new_step(step.narration.id, chapter.number, now, _plain(chapter)) for chapter in chapters]
            await connection.execute(insert(StepRow), [*rows, _new_step(step.narration.id, MASTERING, now)])
            return await _narration(connection, step.narration.id)

    async def tell(self, step: Step, progress: ChapterProgress) -> None:
        """Write down how far a chapter is. Raises JobLost."""
        async with self._database.writing() as connection:
            await self._touch(connection, step)
            await self._change(connection, step, progress=_plain(progress))

    async def finish_chapter(self, step: Step, progress: ChapterProgress, *, result_key: str | None) -> Narration:
        """End a chapter: rendered, or given up with `progress.error`. The last one to end may end the narration.

        Raises JobLost.
        """
        async with self._database.writing() as connection:
            await self._touch(connection, step)
            await self._change(
                connection,
                step,
                progress=_plain(progress),
                result_key=result_key,
                failed=progress.error is not None,
                finished_at=self._now(),
                lease_expires_at=None,
            )
            chapters = (await _chapters(connection, [step.narration.id]))[step.narration.id]
            if all(chapter.finished or chapter.error for chapter in chapters):
                await self._end_rendering(connection, step.narration.id, chapters)
            return await _narration(connection, step.narration.id)

    async def _end_rendering(
        self, connection: AsyncConnection, narration_id: str, chapters: list[ChapterProgress]
    ) -> None:
        """All chapters are over: on to the mastering, or to the end if some could not be rendered."""
        changes: dict[str, Any] = {"state": NarrationState.MASTERING.value}
        if failed := [chapter.error for chapter in chapters if chapter.error]:
            more = f"; {len(failed) - 1} more chapters failed, see `chapters`" if len(failed) > 1 else ""
            error = failed[0].model_copy(update={"message": failed[0].message + more})
            changes = {"state": NarrationState.FAILED.value, "error": _plain(error), "finished_at": self._now()}
        await connection.execute(update(NarrationRow).where(NarrationRow.id == narration_id).values(**changes))

    async def result_keys(self, narration_id: str) -> list[str]:
        """Where the rendered chapters' takes are listed, in the order of the chapters."""
        steps = select(StepRow.result_key).where(
            StepRow.narration_id == narration_id, StepRow.number.not_in((PLAN, MASTERING))
        )
        async with self._database.reading() as connection:
            return [key for key in await connection.scalars(steps.order_by(StepRow.number)) if key]

    async def render_again(self, step: Step) -> None:
        """Segments have gone from the store: give the mastering back, and look at every chapter. Raises JobLost."""
        async with self._database.writing() as connection:
            await self._touch(connection, step, state=NarrationState.RENDERING.value)
            await self._change(connection, step, lease_expires_at=None)
            await self._open_steps(connection, step.narration.id, StepRow.number > PLAN)

    async def complete(
        self, step: Step, output: NarrationOutput, *, findings: tuple[TextFinding, ...] = ()
    ) -> Narration:
        """The file is there, with what was found about it; one asked to stop ends cancelled, and keeps what it had.

        Raises JobLost.
        """
        now = self._now()
        async with self._database.writing() as connection:
            await self._touch(connection, step)
            await self._change(connection, step, finished_at=now, lease_expires_at=None)
            narration = await _narration(connection, step.narration.id)
            changes: dict[str, Any] = {
                "state": NarrationState.COMPLETED.value,
                "output": _plain(output),
                "findings": _plain(_renewed(narration, MASTERED, findings)),
            }
            if narration.cancel_requested:
                changes = {"state": NarrationState.CANCELLED.value}
            await connection.execute(
                update(NarrationRow).where(NarrationRow.id == narration.id).values(finished_at=now, **changes)
            )
            return await _narration(connection, narration.id)

    async def fail(self, step: Step, error: JobError) -> Narration:
        """End the narration with the failure of its plan or its mastering. Raises JobLost."""
        now = self._now()
        async with self._database.writing() as connection:
            await self._touch(connection, step, state=NarrationState.FAILED.value, error=_plain(error), finished_at=now)
            await self._change(connection, step, failed=True, finished_at=now, lease_expires_at=None)
            return await _narration(connection, step.narration.id)

    async def give_back(self, step: Step) -> None:
        """End the claim and leave the step to the next worker, which goes on from what is stored. Raises JobLost."""
        async with self._database.writing() as connection:
            await self._touch(connection, step)
            await self._change(connection, step, lease_expires_at=None, released_at=self._now())
        await self.end_cancelled()

    async def _touch(self, connection: AsyncConnection, step: Step, **changes: Any) -> None:
        """Change the narration's row, which locks it. Raises JobLost when it is over."""
        touched = await connection.execute(
            update(NarrationRow)
            .where(NarrationRow.id == step.narration.id, NarrationRow.finished_at.is_(None))
            .values(revision=NarrationRow.revision + 1, **changes)
        )
        if not touched.rowcount:
            raise JobLost(f"narration {step.narration.id} is over")

    async def _change(self, connection: AsyncConnection, step: Step, **changes: Any) -> None:
        """Change the step's row, which only its attempt can."""
        changed = await connection.execute(
            update(StepRow)
            .where(
                StepRow.narration_id == step.narration.id,
                StepRow.number == step.number,
                StepRow.attempt == step.attempt,
                StepRow.finished_at.is_(None),
            )
            .values(**changes)
        )
        if not changed.rowcount:
            raise JobLost(f"step {step.number} of {step.narration.id} is not attempt {step.attempt}'s any more")

    # For whoever looks after them.

    async def end_cancelled(self) -> None:
        """End every narration that was asked to stop and that nobody works on."""
        now = self._now()
        held = select(StepRow.number).where(
            StepRow.narration_id == NarrationRow.id, StepRow.finished_at.is_(None), StepRow.lease_expires_at >= now
        )
        async with self._database.writing() as connection:
            await connection.execute(
                update(NarrationRow)
                .where(NarrationRow.cancel_requested, NarrationRow.finished_at.is_(None), ~held.exists())
                .values(state=NarrationState.CANCELLED.value, finished_at=now, revision=NarrationRow.revision + 1)
            )

    async def forsaken(self, *, for_s: float) -> list[str]:
        """The ids of narrations with a step that has been nobody's for so long, the oldest first."""
        limit = self._now() - timedelta(seconds=for_s)
        lost = or_(
            StepRow.lease_expires_at < limit, and_(StepRow.lease_expires_at.is_(None), StepRow.released_at < limit)
        )
        statement = (
            select(NarrationRow.id)
            .where(
                NarrationRow.finished_at.is_(None),
                select(StepRow.number)
                .where(StepRow.narration_id == NarrationRow.id, StepRow.finished_at.is_(None), lost)
                .exists(),
            )
            .order_by(NarrationRow.created_at)
        )
        async with self._database.reading() as connection:
            return list(await connection.scalars(statement))

    async def unannounced(self, *, since: datetime) -> list[tuple[str, datetime]]:
        """Narrations that ended since then, and when, whose webhook has not been heard."""
        statement = select(NarrationRow.id, NarrationRow.finished_at).where(
            NarrationRow.webhook_url.is_not(None),
            NarrationRow.webhook_done_at.is_(None),
            NarrationRow.finished_at >= since,
        )
        async with self._database.reading() as connection:
            return [(row.id, row.finished_at) for row in await connection.execute(statement)]

    async def announced(self, narration_id: str) -> None:
        """The webhook of a narration has been heard, or never will be."""
        async with self._database.writing() as connection:
            await connection.execute(
                update(NarrationRow).where(NarrationRow.id == narration_id).values(webhook_done_at=self._now())
            )


def _renewed(narration: Narration, codes: frozenset[str], findings: tuple[TextFinding, ...]) -> tuple[TextFinding, ...]:
    """The narration's findings with those of `codes` replaced."""
    return (*(finding for finding in narration.findings if finding.code not in codes), *findings)


def _state_of(number: int) -> NarrationState:
    return {PLAN: NarrationState.PLANNING, MASTERING: NarrationState.MASTERING}.get(number, NarrationState.RENDERING)


def _new_step(narration_id: str, number: int, now: datetime, progress: Any = None) -> dict[str, Any]:
    return {
        "narration_id": narration_id,
        "number": number,
        "attempt": 0,
        "progress": progress,
        "failed": False,
        "released_at": now,
    }


def _unheld(now: datetime) -> ColumnElement[bool]:
    return or_(StepRow.lease_expires_at.is_(None), StepRow.lease_expires_at < now)


async def _narration(connection: AsyncConnection, narration_id: str) -> Narration:
    """Raises NotFound."""
    statement = select(*NarrationRow.__table__.c).where(NarrationRow.id == narration_id)
    row = (await connection.execute(statement)).first()
    if row is None:
        raise NotFound(f"there is no narration {narration_id[:64]!r}; GET /v1/narrations lists them", param="id")
    return _built(row, (await _chapters(connection, [narration_id]))[narration_id])


async def _chapters(connection: AsyncConnection, narration_ids: list[str]) -> dict[str, list[ChapterProgress]]:
    """The progress of every chapter, in order, by narration. Whether it is over, the step's own columns say."""
    statement = (
        select(*StepRow.__table__.c)
        .where(StepRow.narration_id.in_(narration_ids), StepRow.number.not_in((PLAN, MASTERING)))
        .order_by(StepRow.number)
    )
    chapters: dict[str, list[ChapterProgress]] = {narration_id: [] for narration_id in narration_ids}
    for row in await connection.execute(statement):
        ended = row.finished_at is not None
        error = row.progress["error"] if ended and row.failed else None
        progress = row.progress | {"finished": ended and not row.failed, "error": error}
        chapters[row.narration_id].append(ChapterProgress.model_validate(progress))
    return chapters


def _built(row: Row[Any], chapters: list[ChapterProgress]) -> Narration:
    stored = set(Narration.model_fields) - {"chapters"}
    return Narration.model_validate({name: getattr(row, name) for name in stored} | {"chapters": chapters})


def _plain(value: Any) -> Any:
    """As JSON has it."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value
