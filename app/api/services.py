"""What every edge is handed: the front door's parts, and who is asking."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends
from starlette.requests import HTTPConnection

from app.api.metrics import Metrics
from app.errors import AuthenticationFailed, PermissionDenied, StoreUnavailable
from app.fleet.registry import Registry
from app.platform.object_store import ObjectStore
from app.platform.settings import Settings
from app.platform.signed_links import Links
from app.platform.task_queue import Queue
from app.realtime.journal_store import Journals
from app.realtime.router import Upstream
from app.speech.choices import Scope
from app.speech.voices import ApiKey
from app.voices.resolver import Directory

if TYPE_CHECKING:
    from app.api.native.socket import SessionSocket
    from app.catalog import Catalog


MAX_INSPECTIONS = 2
"""Recordings that one front door looks into at once: each costs a core for as long as it is decoded."""


@dataclass(frozen=True)
class Door:
    """The parts of one front door, made by `app.main` and shared by its requests."""

    settings: Settings
    catalog: Catalog
    upstream: Upstream
    directory: Directory
    metrics: Metrics
    registry: Registry
    queue: Queue
    links: Links
    journals: Journals
    object_store: ObjectStore | None = None
    inspections: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_INSPECTIONS))
    sockets: set[SessionSocket] = field(default_factory=set)

    @property
    def store(self) -> ObjectStore:
        """Raises StoreUnavailable where none is configured: speaking needs none, recordings do."""
        if self.object_store is None:
            raise StoreUnavailable(
                "no object store is configured here, so recordings cannot be kept; set CARILLON_STORE__ENDPOINT_URL"
            )
        return self.object_store

    async def admit(self, token: str | None, scope: Scope) -> ApiKey | None:
        """The key of `token`, or None where keys are not asked for.

        Raises AuthenticationFailed or PermissionDenied unless it is a key with `scope`.
        """
        if not self.settings.auth:
            return None
        if not token:
            raise AuthenticationFailed(
                "there is no API key; send `Authorization: Bearer <key>` (`carillon keys create` makes one)"
            )
        key = await self.catalog.authenticate(token)
        if not key.allows(scope):
            raise PermissionDenied(
                f"this key lacks the scope {scope.value!r}; it has: {', '.join(sorted(key.scopes)) or 'none'}"
            )
        return key


def the_door(connection: HTTPConnection) -> Door:
    return connection.app.state.door


TheDoor = Annotated[Door, Depends(the_door)]


def bearer_token(connection: HTTPConnection) -> str | None:
    """The key of an `Authorization: Bearer …` header, if there is one."""
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def requires(scope: Scope) -> Callable[..., Coroutine[Any, Any, ApiKey | None]]:
    """A dependency that lets only keys with `scope` pass, and says which it was; None where keys are not asked for."""

    async def admit(connection: HTTPConnection, door: TheDoor) -> ApiKey | None:
        return await door.admit(bearer_token(connection), scope)

    return admit
