"""What every edge is handed: the front door's parts, and who is asking."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends
from starlette.requests import HTTPConnection

from app.api.metrics import Metrics
from app.core.errors import AuthenticationFailed, PermissionDenied
from app.core.models import Scope
from app.infra.directory import Directory
from app.infra.settings import Settings
from app.infra.upstream import Upstream

if TYPE_CHECKING:
    from app.api.sessions import SessionSocket
    from app.infra.catalog import Catalog


@dataclass(frozen=True)
class Door:
    """The parts of one front door, made by `app.main` and shared by its requests."""

    settings: Settings
    catalog: Catalog
    upstream: Upstream
    directory: Directory
    metrics: Metrics
    sockets: set[SessionSocket] = field(default_factory=set)

    async def admit(self, token: str | None, scope: Scope) -> None:
        """Raises AuthenticationFailed or PermissionDenied unless `token` is a key with `scope`."""
        if not self.settings.auth:
            return
        if not token:
            raise AuthenticationFailed(
                "there is no API key; send `Authorization: Bearer <key>` (`carillon keys create` makes one)"
            )
        key = await self.catalog.authenticate(token)
        if not key.allows(scope):
            raise PermissionDenied(
                f"this key lacks the scope {scope.value!r}; it has: {', '.join(sorted(key.scopes)) or 'none'}"
            )


def the_door(connection: HTTPConnection) -> Door:
    return connection.app.state.door


TheDoor = Annotated[Door, Depends(the_door)]


def bearer_token(connection: HTTPConnection) -> str | None:
    """The key of an `Authorization: Bearer …` header, if there is one."""
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def requires(scope: Scope) -> Callable[..., Coroutine[Any, Any, None]]:
    """A dependency that lets only keys with `scope` pass."""

    async def admit(connection: HTTPConnection, door: TheDoor) -> None:
        await door.admit(bearer_token(connection), scope)

    return admit
