"""API keys: what proves that a request may do what it asks for."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import Row

from app.speech.choices import Scope
from app.speech.voices import Frozen

if TYPE_CHECKING:
    pass


MAX_KEY_NAME_CHARS = 100


class ApiKey(Frozen):
    """A key as the catalogue knows it: never the token, which is shown once when it is made."""

    id: str
    name: str
    scopes: frozenset[Scope]
    created_at: datetime
    expires_at: datetime | None = None
    last_used_at: datetime | None = None
    revoked_at: datetime | None = None

    def allows(self, scope: Scope) -> bool:
        return scope in self.scopes or Scope.ADMIN in self.scopes


TOKEN_PREFIX = "cari"


LAST_USED_RESOLUTION = timedelta(minutes=1)


class NewKey(Frozen):
    """A key just made. `token` is shown to its owner now, and never again."""

    id: str
    token: str


def _api_key(row: Row[Any]) -> ApiKey:
    return ApiKey(
        id=row.id,
        name=row.name,
        scopes=frozenset(Scope(scope) for scope in row.scopes),
        created_at=row.created_at,
        expires_at=row.expires_at,
        last_used_at=row.last_used_at,
        revoked_at=row.revoked_at,
    )
