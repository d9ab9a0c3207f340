"""Narrations and their steps as rows: what `NarrationStore` and `StepStore` both need to read and write.

A narration is done in steps: its plan, then its chapters in any order, then the mastering.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.errors import NotFound
from app.narration.models import ChapterProgress, Narration, NarrationState, StepKind, TextFinding
from app.platform import claims
from app.platform.idempotency import new_id
from app.platform.projects import EVERYONE, Tenant
from app.platform.tables import NarrationRow, StepRow

ID_PREFIX = "nar-"
CASTING = frozenset({"uncast_character", "language"})
"""The codes of findings that are about voices …"""
MASTERED = frozenset({"loudness_missed", "peak_missed", "cover_left_out", "marks_left_out"})
"""… and of those about the finished file."""

PLAN_NUMBER, MASTER_NUMBER = 0, 1_000_000
"""Of the first step and of the last; chapters have their own."""


def new_narration_id() -> str:
    return new_id(ID_PREFIX)


async def read_narration(connection: AsyncConnection, narration_id: str, tenant: Tenant = EVERYONE) -> Narration:
    """Raises NotFound."""
    statement = select(*NarrationRow.__table__.c).where(
        NarrationRow.id == narration_id, tenant.owns(NarrationRow.project_id)
    )
    row = (await connection.execute(statement)).first()
    if row is None:
        raise NotFound(f"there is no narration {narration_id[:64]!r}; GET /v1/narrations lists them", param="id")
    narration = built(row, (await read_chapters(connection, [narration_id]))[narration_id])
    if narration.state is not NarrationState.QUEUED:
        return narration
    ahead = await connection.scalar(claims.ahead(NarrationRow, row.created_at))
    return narration.model_copy(update={"ahead": ahead})


async def read_chapters(connection: AsyncConnection, narration_ids: list[str]) -> dict[str, list[ChapterProgress]]:
    """The progress of every chapter, in order, by narration. Whether it is over, the step's own columns say."""
    statement = (
        select(*StepRow.__table__.c)
        .where(StepRow.narration_id.in_(narration_ids), StepRow.kind == StepKind.CHAPTER.value)
        .order_by(StepRow.number)
    )
    chapters: dict[str, list[ChapterProgress]] = {narration_id: [] for narration_id in narration_ids}
    for row in await connection.execute(statement):
        ended = row.finished_at is not None
        error = row.progress["error"] if ended and row.failed else None
        progress = row.progress | {"finished": ended and not row.failed, "error": error}
        chapters[row.narration_id].append(ChapterProgress.model_validate(progress))
    return chapters


def built(row: Row[Any], chapters: list[ChapterProgress]) -> Narration:
    stored = set(Narration.model_fields) - {"chapters", "ahead"}
    return Narration.model_validate({name: getattr(row, name) for name in stored} | {"chapters": chapters})


def new_step(narration_id: str, kind: StepKind, number: int, now: datetime, progress: Any = None) -> dict[str, Any]:
    return {
        "narration_id": narration_id,
        "number": number,
        "kind": kind.value,
        "attempt": 0,
        "setbacks": 0,
        "progress": progress,
        "failed": False,
        "released_at": now,
    }


async def open_steps(connection: AsyncConnection, narration_id: str, which: ColumnElement[bool], now: datetime) -> None:
    """Reopen steps; a process that holds a claim on one has lost it."""
    await connection.execute(
        update(StepRow)
        .where(StepRow.narration_id == narration_id, which)
        .values(
            attempt=StepRow.attempt + 1,
            setbacks=0,
            failed=False,
            finished_at=None,
            lease_expires_at=None,
            released_at=now,
        )
    )


async def end_cancelled(connection: AsyncConnection, now: datetime) -> None:
    """End every narration that was asked to stop and that no process works on."""
    held = select(StepRow.number).where(
        StepRow.narration_id == NarrationRow.id, StepRow.finished_at.is_(None), StepRow.lease_expires_at >= now
    )
    await connection.execute(claims.end_cancelled(NarrationRow, ~held.exists(), now))


def renewed(narration: Narration, codes: frozenset[str], findings: tuple[TextFinding, ...]) -> tuple[TextFinding, ...]:
    """The narration's findings with those of `codes` replaced."""
    return (*(finding for finding in narration.findings if finding.code not in codes), *findings)
