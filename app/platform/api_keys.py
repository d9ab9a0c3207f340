"""API keys: what proves that a request may do what it asks for. `api_key_store` keeps them."""

from __future__ import annotations

from datetime import datetime

from app.speech.choices import Scope
from app.speech.voices import Frozen

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


class NewKey(Frozen):
    """A key just made. `token` is shown to its owner now, and never again."""

    id: str
    token: str
