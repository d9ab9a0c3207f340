"""Claims in SQL: statements on the rows of work that one process at a time may hold.

A row is held until `lease_expires_at`, and over from `finished_at` on. `attempt` is the fencing token: each claim
raises it and every change by the holder names it, so that a process that lost its claim changes nothing. What is
cancelled or announced is the row itself (a clone job) or the row above it (a narration, whose steps are claimed).

It knows neither what the work is nor the transactions that these statements belong to.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, func, or_, select, update
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.sql.dml import ReturningUpdate, Update

from app.platform.jobs import CLAIM_S
from app.platform.tables import JobRow, NarrationRow, StepRow

ClaimedTable = type[JobRow] | type[StepRow]
AnnouncedTable = type[JobRow] | type[NarrationRow]


def claim(table: ClaimedTable, which: ColumnElement[bool], now: datetime, **changes: Any) -> ReturningUpdate[Any]:
    """Take a row that is not over and that no process holds; returns it as it is then, or none."""
    return (
        update(table)
        .where(which, table.finished_at.is_(None), unheld(table, now))
        .values(attempt=table.attempt + 1, lease_expires_at=lease_end(now), **changes)
        .returning(*table.__table__.c)
    )


def change(table: ClaimedTable, which: ColumnElement[bool], attempt: int, **changes: Any) -> ReturningUpdate[Any]:
    """Change a row, which only its attempt can; returns it as it is then, or none for one that lost its claim."""
    return (
        update(table)
        .where(which, table.attempt == attempt, table.finished_at.is_(None))
        .values(**changes)
        .returning(*table.__table__.c)
    )


def lease_end(now: datetime) -> datetime:
    """Until when a claim or a renewal holds."""
    return now + timedelta(seconds=CLAIM_S)


def unheld(table: ClaimedTable, now: datetime) -> ColumnElement[bool]:
    return or_(table.lease_expires_at.is_(None), table.lease_expires_at < now)


def stalled(
    table: ClaimedTable, waiting_since: InstrumentedAttribute[datetime], limit: datetime
) -> ColumnElement[bool]:
    """Not over, and held by no process since `limit`: its message or its process is lost."""
    waiting = and_(table.lease_expires_at.is_(None), waiting_since < limit)
    return and_(table.finished_at.is_(None), or_(table.lease_expires_at < limit, waiting))


def request_cancel(table: AnnouncedTable, row_id: str) -> Update:
    """Ask for the end of what is not over; its holder sees it with the next renewal."""
    return (
        update(table)
        .where(table.id == row_id, table.finished_at.is_(None))
        .values(cancel_requested=True, revision=table.revision + 1)
    )


def end_cancelled(table: AnnouncedTable, idle: ColumnElement[bool], now: datetime) -> Update:
    """End what was asked to stop, where it is `idle`: no process is at work on it."""
    return (
        update(table)
        .where(table.cancel_requested, table.finished_at.is_(None), idle)
        .values(state="cancelled", finished_at=now, revision=table.revision + 1)
    )


def unannounced(table: AnnouncedTable) -> ColumnElement[bool]:
    """Over, with a webhook that was not received yet."""
    return and_(table.webhook_url.is_not(None), table.webhook_done_at.is_(None), table.finished_at.is_not(None))


def unannounced_since(table: AnnouncedTable, since: datetime) -> Select[str, datetime | None]:
    """The ids of what ended since then and is unannounced, each with its end."""
    return select(table.id, table.finished_at).where(unannounced(table), table.finished_at >= since)


def announced(table: AnnouncedTable, which: ColumnElement[bool], now: datetime) -> Update:
    """The webhook was received, or never will be."""
    return update(table).where(which).values(webhook_done_at=now)


def ahead(rows: AnnouncedTable, created_at: datetime) -> Select[int]:
    """How many of these jobs are not over and were there before."""
    return select(func.count()).select_from(rows).where(rows.finished_at.is_(None), rows.created_at < created_at)
