"""Projects: the owners of everything that is made here. A project's resources are visible to its own keys and to
operators.

A store works for a `Tenant`, and treats another's rows as absent. Built-in voices belong to a model and are visible to
all. Permissions belong to keys (`api_keys`).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import Field, field_validator
from sqlalchemy import ColumnElement, insert, select, true, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import InstrumentedAttribute

from app.errors import Conflict, InvalidRequest, NotFound
from app.platform.database import Database
from app.platform.limit_values import Limits
from app.platform.tables import DEFAULT_PROJECT, ProjectRow
from app.speech.voices import Frozen

MAX_PROJECT_NAME_CHARS = 64


@dataclass(frozen=True)
class Tenant:
    """The scope of a store: rows are created in `project`, and read from it unless `sees_all`."""

    project: str
    sees_all: bool = False

    def owns(self, column: InstrumentedAttribute[str]) -> ColumnElement[bool]:
        """The condition for rows that may be seen; `column` has their project."""
        return true() if self.sees_all else column == self.project


EVERYONE = Tenant(DEFAULT_PROJECT, sees_all=True)
"""The tenant of processes behind the front door, whose work was admitted before."""

STRANGER = Tenant("")
"""The tenant of unauthenticated requests: no project has this id."""


class Project(Frozen):
    """A project as operators see it."""

    id: str
    name: str
    created_at: datetime
    limits: Limits = Field(default=Limits(), description="Where it says nothing, the settings do.")

    @field_validator("limits", mode="before")
    @classmethod
    def _none_is_no_limit(cls, limits: Any) -> Any:
        return limits or Limits()


class ProjectStore:
    """The projects of one database. Every method raises StoreUnavailable when it does not answer."""

    def __init__(self, database: Database, *, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now

    async def create(self, name: str, limits: Limits | None = None) -> Project:
        """A new project. Raises InvalidRequest for a name that no list could show, Conflict for a taken one."""
        if not 1 <= len(name.strip()) <= MAX_PROJECT_NAME_CHARS or not name.isprintable():
            raise InvalidRequest(
                f"name: a project's has 1 to {MAX_PROJECT_NAME_CHARS} printable characters", param="name"
            )
        project = Project(
            id=f"prj-{secrets.token_hex(6)}", name=name.strip(), created_at=self._now(), limits=limits or Limits()
        )
        async with self._database.writing() as connection:
            try:
                await connection.execute(
                    insert(ProjectRow).values(
                        **project.model_dump(exclude={"limits"}),
                        limits=limits and limits.model_dump(exclude_unset=True),
                    )
                )
            except IntegrityError:
                raise Conflict(
                    f"there is a project {project.name!r} already; choose another name", param="name"
                ) from None
        return project

    async def all(self) -> list[Project]:
        """Every project, the oldest first."""
        statement = select(*ProjectRow.__table__.c).order_by(ProjectRow.created_at, ProjectRow.id)
        async with self._database.reading() as connection:
            return [Project(**row._mapping) for row in await connection.execute(statement)]

    async def limit(self, project: str, limits: Limits) -> Project:
        """Give a project, by id or name, other limits. Raises NotFound."""
        found = await self.find(project)
        async with self._database.writing() as connection:
            await connection.execute(
                update(ProjectRow).where(ProjectRow.id == found.id).values(limits=limits.model_dump(exclude_unset=True))
            )
        return await self.find(found.id)

    async def find(self, project: str) -> Project:
        """The project of that id or name. Raises NotFound."""
        statement = select(*ProjectRow.__table__.c).where((ProjectRow.id == project) | (ProjectRow.name == project))
        async with self._database.reading() as connection:
            rows = (await connection.execute(statement)).all()
        if not rows:
            raise NotFound(
                f"there is no project {project[:64]!r}; `carillon projects list` shows them", param="project"
            )
        found = min(rows, key=lambda row: row.id != project)  # an id goes before another's name
        return Project(**found._mapping)
