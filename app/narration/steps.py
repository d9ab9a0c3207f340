"""The steps of narrations, for the processes that do them: claims, progress, ends. The rows are the truth.

A worker claims the next step that is unclaimed, for a while, and renews the claim as it works; each claim has a number,
the attempt, and every change of a step names it, as in `app.voices.jobs`. A message of the queue names no step: it
says that there is work.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import case, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.errors import JobLost
from app.narration.models import ChapterProgress, Narration, NarrationOutput, NarrationState, StepKind, TextFinding
from app.narration.rows import (
    MASTER_NUMBER,
    MASTERED,
    end_cancelled,
    new_step,
    open_steps,
    read_chapters,
    read_narration,
    renewed,
)
from app.narration.turns import turns
from app.platform import claims
from app.platform.database import Database, plain
from app.platform.jobs import JobError
from app.platform.tables import NarrationRow, StepRow
from app.platform.usage import UsageRecord, write_usage

STATES = {
    StepKind.PLAN: NarrationState.PLANNING,
    StepKind.CHAPTER: NarrationState.RENDERING,
    StepKind.MASTER: NarrationState.MASTERING,
}
"""What a narration is in while a step of the kind is done."""


@dataclass(frozen=True)
class Step:
    """A claimed step of a narration, as it was when it was claimed."""

    narration: Narration
    kind: StepKind
    number: int
    attempt: int
    failures: int


class StepStore:
    """The steps of one database's narrations. Every method raises StoreUnavailable when it does not answer.

    Machines that share a database need clocks that agree to within a few seconds (NTP): a claim ends by the clock.
    """

    def __init__(self, database: Database, *, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now

    async def claim_next(self) -> Step | None:
        """Take the step whose turn it is, of whichever narration; None when there is none to do now."""
        async with self._database.reading() as connection:
            waiting = await turns(connection, self._now())
        for narration_id in waiting:
            if (step := await self.claim(narration_id)) is not None:
                return step
        return None

    async def claim(self, narration_id: str) -> Step | None:
        """Take the next step that no process holds; None when there is none now, or the narration is over."""
        now = self._now()
        # A claim that lapsed was not given back: its process died.
        died = case((StepRow.lease_expires_at.is_(None), 0), else_=1)
        async with self._database.writing() as connection:
            for number in await self._ready(connection, narration_id, now):
                which = (StepRow.narration_id == narration_id) & (StepRow.number == number)
                taking = claims.claim(StepRow, which, now, setbacks=StepRow.setbacks + died)
                if (row := (await connection.execute(taking)).first()) is None:
                    continue  # another was faster
                kind = StepKind(row.kind)
                await connection.execute(
                    update(NarrationRow)
                    .where(NarrationRow.id == narration_id)
                    .values(
                        state=STATES[kind].value,
                        started_at=func.coalesce(NarrationRow.started_at, now),
                        revision=NarrationRow.revision + 1,
                    )
                )
                narration = await read_narration(connection, narration_id)
                return Step(narration, kind, number, row.attempt, row.setbacks)
        return None

    async def _ready(self, connection: AsyncConnection, narration_id: str, now: datetime) -> list[int]:
        """The numbers of the steps that can be done now and that no process holds."""
        active = select(NarrationRow.id).where(
            NarrationRow.id == narration_id, NarrationRow.finished_at.is_(None), ~NarrationRow.cancel_requested
        )
        # Whatever changes what there is to do locks the narration's row first: two workers see each other's steps.
        if await connection.scalar(active.with_for_update()) is None:
            return []
        unfinished = select(StepRow.number, StepRow.kind, claims.unheld(StepRow, now).label("unheld")).where(
            StepRow.narration_id == narration_id, StepRow.finished_at.is_(None)
        )
        steps = (await connection.execute(unfinished.order_by(StepRow.number))).all()
        return [step.number for step in steps if step.kind == steps[0].kind and step.unheld]

    async def renew(self, step: Step) -> bool:
        """Keep the claim; returns whether the narration is to be cancelled. Raises JobLost."""
        async with self._database.writing() as connection:
            await self._change(connection, step, lease_expires_at=claims.lease_end(self._now()))
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
                findings=plain(findings),
            )
            await self._change(connection, step, finished_at=now, lease_expires_at=None)
            later = (StepRow.narration_id == step.narration.id) & (StepRow.kind != StepKind.PLAN.value)
            await connection.execute(delete(StepRow).where(later))
            rows = [
                new_step(step.narration.id, StepKind.CHAPTER, chapter.number, now, plain(chapter))
                for chapter in chapters
            ]
            rows.append(new_step(step.narration.id, StepKind.MASTER, MASTER_NUMBER, now))
            await connection.execute(insert(StepRow), rows)
            return await read_narration(connection, step.narration.id)

    async def report(self, step: Step, progress: ChapterProgress) -> None:
        """Write down how far a chapter is. Raises JobLost."""
        async with self._database.writing() as connection:
            await self._touch(connection, step)
            await self._change(connection, step, progress=plain(progress))
            await self._record(connection, step, progress)

    async def finish_chapter(self, step: Step, progress: ChapterProgress, *, result_key: str | None) -> Narration:
        """End a chapter: rendered, or given up with `progress.error`. The last one to end may end the narration.

        Raises JobLost.
        """
        async with self._database.writing() as connection:
            await self._touch(connection, step)
            await self._change(
                connection,
                step,
                progress=plain(progress),
                result_key=result_key,
                failed=progress.error is not None,
                finished_at=self._now(),
                lease_expires_at=None,
            )
            await self._record(connection, step, progress)
            chapters = (await read_chapters(connection, [step.narration.id]))[step.narration.id]
            if all(chapter.finished or chapter.error for chapter in chapters):
                await self._end_rendering(connection, step.narration.id, chapters)
            return await read_narration(connection, step.narration.id)

    async def _record(self, connection: AsyncConnection, step: Step, progress: ChapterProgress) -> None:
        """What the chapter has used in all, with its progress or not at all; the narration may be deleted later."""
        narration = step.narration
        if not progress.rendered_chars:
            return
        used = UsageRecord(
            id=f"{narration.id}/{step.number}",
            at=narration.created_at,
            project_id=narration.project_id,
            key_id=narration.key_id,
            voice_id=narration.voices[narration.voice].id if narration.voice in narration.voices else narration.voice,
            kind="narration",
            characters=progress.rendered_chars,
            audio_s=progress.rendered_s,
            gpu_s=progress.busy_s,
        )
        await write_usage(connection, [used])

    async def _end_rendering(
        self, connection: AsyncConnection, narration_id: str, chapters: list[ChapterProgress]
    ) -> None:
        """All chapters are over: on to the mastering, or to the end if some could not be rendered."""
        changes: dict[str, Any] = {"state": NarrationState.MASTERING.value}
        if failed := [chapter.error for chapter in chapters if chapter.error]:
            more = f"; {len(failed) - 1} more chapters failed, see `chapters`" if len(failed) > 1 else ""
            error = failed[0].model_copy(update={"message": failed[0].message + more})
            changes = {"state": NarrationState.FAILED.value, "error": plain(error), "finished_at": self._now()}
        await connection.execute(update(NarrationRow).where(NarrationRow.id == narration_id).values(**changes))

    async def result_keys(self, narration_id: str) -> list[str]:
        """Where the rendered chapters' takes are listed, in the order of the chapters."""
        steps = select(StepRow.result_key).where(
            StepRow.narration_id == narration_id, StepRow.kind == StepKind.CHAPTER.value
        )
        async with self._database.reading() as connection:
            return [key for key in await connection.scalars(steps.order_by(StepRow.number)) if key]

    async def render_again(self, step: Step) -> None:
        """Segments have gone from the store: give the mastering back, and look at every chapter. Raises JobLost."""
        async with self._database.writing() as connection:
            await self._touch(connection, step, state=NarrationState.RENDERING.value)
            await self._change(connection, step, lease_expires_at=None)
            await open_steps(connection, step.narration.id, StepRow.kind != StepKind.PLAN.value, self._now())

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
            narration = await read_narration(connection, step.narration.id)
            changes: dict[str, Any] = {
                "state": NarrationState.COMPLETED.value,
                "output": plain(output),
                "findings": plain(renewed(narration, MASTERED, findings)),
            }
            if narration.cancel_requested:
                changes = {"state": NarrationState.CANCELLED.value}
            await connection.execute(
                update(NarrationRow).where(NarrationRow.id == narration.id).values(finished_at=now, **changes)
            )
            return await read_narration(connection, narration.id)

    async def fail(self, step: Step, error: JobError) -> Narration:
        """End the narration with the failure of its plan or its mastering. Raises JobLost."""
        now = self._now()
        async with self._database.writing() as connection:
            await self._touch(connection, step, state=NarrationState.FAILED.value, error=plain(error), finished_at=now)
            await self._change(connection, step, failed=True, finished_at=now, lease_expires_at=None)
            return await read_narration(connection, step.narration.id)

    async def give_back(self, step: Step, *, failure: bool = False) -> None:
        """End the claim and leave the step to the next worker, which goes on from what is stored.

        `failure` counts against the step: something failed. Raises JobLost.
        """
        changes = {"setbacks": StepRow.setbacks + 1} if failure else {}
        async with self._database.writing() as connection:
            await self._touch(connection, step)
            await self._change(connection, step, lease_expires_at=None, released_at=self._now(), **changes)
            await end_cancelled(connection, self._now())

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
        which = (StepRow.narration_id == step.narration.id) & (StepRow.number == step.number)
        changed = await connection.execute(claims.change(StepRow, which, step.attempt, **changes))
        if changed.first() is None:
            raise JobLost(f"step {step.number} of {step.narration.id} is not attempt {step.attempt}'s any more")
