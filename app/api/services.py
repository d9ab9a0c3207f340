"""What every edge is handed: the front door's parts, and who is asking."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

from fastapi import Depends
from starlette.requests import HTTPConnection

from app.api.metrics import Metrics
from app.errors import AuthenticationFailed, PermissionDenied, StoreUnavailable
from app.fleet.registry import Registry
from app.platform.api_keys import ApiKey
from app.platform.object_store import ObjectStore
from app.platform.settings import Settings
from app.platform.signed_links import SignedLinks
from app.platform.task_queue import TaskQueue
from app.realtime.journal_store import JournalStore
from app.realtime.router import SessionRouter
from app.speech.choices import Scope
from app.voices.ingest import Ingest
from app.voices.resolver import VoiceResolver

if TYPE_CHECKING:
    from app.catalog import Catalog


MAX_PROBES = 2
"""Recordings that one front door looks into at once: each costs a core for as long as it is decoded."""


def uploads_directory(settings: Settings) -> Path:
    """Beside the data, since a system's /tmp is often memory."""
    return settings.data_dir / "uploads"


class Drainable(Protocol):
    """An open socket with sessions on it, of whatever dialect; `app.main` ends them when the front door stops."""

    @property
    def busy(self) -> bool:
        """Whether the client is still to be told, or a session is being spoken that cannot go on elsewhere."""
        ...

    def go_away(self, deadline_s: float) -> None:
        """Tell the client that the server stops, and start nothing more."""
        ...


@dataclass(frozen=True)
class Services:
    """The parts of one front door, made by `app.main` and shared by its requests."""

    settings: Settings
    catalog: Catalog
    upstream: SessionRouter
    resolver: VoiceResolver
    metrics: Metrics
    registry: Registry
    queue: TaskQueue
    links: SignedLinks
    journals: JournalStore
    object_store: ObjectStore | None = None
    probes: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_PROBES))
    sockets: set[Drainable] = field(default_factory=set)

    @property
    def ingest(self) -> Ingest:
        """Raises StoreUnavailable where no object store is configured."""
        return Ingest(self.settings, self.catalog.voices, self.store, self.probes)

    @property
    def uploads_directory(self) -> Path:
        """Where files wait to be looked into. Raises StoreUnavailable where they could not be kept afterwards."""
        _ = self.store
        return uploads_directory(self.settings)

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
        key = await self.catalog.keys.authenticate(token)
        if not key.allows(scope):
            raise PermissionDenied(
                f"this key lacks the scope {scope.value!r}; it has: {', '.join(sorted(key.scopes)) or 'none'}"
            )
        return key


def the_door(connection: HTTPConnection) -> Services:
    return connection.app.state.services


TheServices = Annotated[Services, Depends(the_door)]


def bearer_token(connection: HTTPConnection) -> str | None:
    """The key of an `Authorization: Bearer …` header, if there is one."""
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def requires(scope: Scope) -> Callable[..., Coroutine[Any, Any, ApiKey | None]]:
    """A dependency that lets only keys with `scope` pass, and says which it was; None where keys are not asked for."""

    async def admit(connection: HTTPConnection, services: TheServices) -> ApiKey | None:
        return await services.admit(bearer_token(connection), scope)

    return admit
