"""Fair scheduling of narration steps between projects and keys.

A message of the queue says that there is a step to do, and a process does the one whose turn it is: so a key with ten
narrations delays another's by one step, and not by ten narrations. First comes the project with the fewest steps in
work, then the one that was served longest ago, and within it the same of its keys.
"""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import Row, Select, and_, case, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import aliased

from app.narration.models import StepKind
from app.platform import claims
from app.platform.tables import NarrationRow, StepRow

MAX_TURNS = 20
"""Another process may take a step between the look and the claim: so many are tried in turn."""

LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


async def turns(connection: AsyncConnection, now: datetime) -> list[str]:
    """The ids of narrations whose turn it is, the first first."""
    ready = (await connection.execute(_ready(now))).all()
    served = (await connection.execute(_served(now))).all()
    held: dict[object, int] = {}
    last: dict[object, datetime] = {}
    for row in served:
        for owner in ((row.project_id,), (row.project_id, row.key_id)):
            held[owner] = held.get(owner, 0) + int(row.held)
            last[owner] = max(last.get(owner, LONG_AGO), row.at or LONG_AGO)

    def turn(row: Row[str, str, str | None, datetime]) -> tuple[object, ...]:
        project, key = (row.project_id,), (row.project_id, row.key_id)
        project_turn = (held.get(project, 0), last.get(project, LONG_AGO))
        return (*project_turn, held.get(key, 0), last.get(key, LONG_AGO), row.created_at, row.id)

    return [row.id for row in sorted(ready, key=turn)][:MAX_TURNS]


def _ready(now: datetime) -> Select[str, str, str | None, datetime]:
    """Narrations with a step that no process holds; the mastering waits until all else is done."""
    unfinished = and_(StepRow.narration_id == NarrationRow.id, StepRow.finished_at.is_(None))
    before = aliased(StepRow)
    earlier = select(before.number).where(
        before.narration_id == NarrationRow.id,
        before.finished_at.is_(None),
        before.kind != StepKind.MASTER.value,
    )
    can_begin = or_(StepRow.kind != StepKind.MASTER.value, ~earlier.exists())
    step = select(StepRow.number).where(unfinished, claims.unheld(StepRow, now), can_begin)
    return select(NarrationRow.id, NarrationRow.project_id, NarrationRow.key_id, NarrationRow.created_at).where(
        NarrationRow.finished_at.is_(None), ~NarrationRow.cancel_requested, step.exists()
    )


def _served(now: datetime) -> Select[str, str | None, int, datetime | None]:
    """By project and key: the steps in work, and when the last one ended or was given back."""
    begun = case((StepRow.attempt > 0, func.coalesce(StepRow.finished_at, StepRow.released_at)))
    return (
        select(
            NarrationRow.project_id,
            NarrationRow.key_id,
            func.sum(case((StepRow.lease_expires_at >= now, 1), else_=0)).label("held"),
            func.max(begun, type_=StepRow.finished_at.type).label("at"),
        )
        .join(StepRow, StepRow.narration_id == NarrationRow.id)
        .where(StepRow.attempt > 0)
        .group_by(NarrationRow.project_id, NarrationRow.key_id)
    )
