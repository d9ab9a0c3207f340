"""The audit log: which key did what to which object, and when. It holds no content.

Reading and speaking are not in it: those are in the usage.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from sqlalchemy import insert, select

from app.platform.database import Database
from app.platform.projects import EVERYONE, Tenant
from app.platform.tables import AuditRow
from app.speech.voices import Frozen


class AuditEntry(Frozen):
    """`action` is like `voice.delete`; `object_id` names what it was done to."""

    id: int
    at: datetime
    project_id: str
    key_id: str | None
    action: str
    object_id: str


class AuditLog:
    """The log of one database. Every method raises StoreUnavailable when it does not answer."""

    def __init__(self, database: Database, *, now: Callable[[], datetime], tenant: Tenant = EVERYONE) -> None:
        self._database = database
        self._now = now
        self._tenant = tenant

    async def add(self, action: str, object_id: str, *, key_id: str | None) -> None:
        """Write down what the tenant did."""
        entry = {"action": action, "object_id": object_id, "key_id": key_id, "project_id": self._tenant.project}
        async with self._database.writing() as connection:
            await connection.execute(insert(AuditRow).values(at=self._now(), **entry))

    async def newest(self, *, limit: int, before: int | None = None) -> list[AuditEntry]:
        """What the tenant may see, the newest first; `before` is the id of an entry."""
        entries = select(*AuditRow.__table__.c).where(self._tenant.owns(AuditRow.project_id))
        if before is not None:
            entries = entries.where(AuditRow.id < before)
        async with self._database.reading() as connection:
            rows = await connection.execute(entries.order_by(AuditRow.id.desc()).limit(limit))
            return [AuditEntry(**row._mapping) for row in rows]
