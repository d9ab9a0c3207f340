"""API keys: what proves that a request may do what it asks for. `api_key_store` keeps them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field, field_validator

from app.platform.limit_values import Limits
from app.platform.projects import Tenant
from app.platform.tables import DEFAULT_PROJECT
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
    project_id: str = DEFAULT_PROJECT
    previous_until: datetime | None = Field(default=None, description="How long the token before this one holds.")

    limits: Limits = Field(default=Limits(), description="Of this key alone; where it says nothing, the settings do.")
    project_limits: Limits = Field(default=Limits(), exclude=True)

    @field_validator("limits", "project_limits", mode="before")
    @classmethod
    def _none_is_no_limit(cls, limits: Any) -> Any:
        return limits or Limits()

    @property
    def tenant(self) -> Tenant:
        """What the key has, and sees."""
        return Tenant(self.project_id, sees_all=Scope.ADMIN in self.scopes)

    def allows(self, scope: Scope) -> bool:
        return scope in self.scopes or Scope.ADMIN in self.scopes


class NewKey(Frozen):
    """A key just made. `token` is shown to its owner now, and never again."""

    id: str
    token: str
