"""The services that every edge is given: the front door's components, bound to the caller."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Protocol

from fastapi import Depends
from starlette.requests import HTTPConnection

from app.api.key_watch import KeyWatch
from app.api.metering import CallerMetering, Metering
from app.api.metrics import Metrics
from app.api.sse import JobWatches
from app.catalog import Catalog
from app.errors import AuthenticationFailed, CarillonError, StoreUnavailable
from app.fleet.registry import Registry
from app.hearing.aligner import Aligner
from app.narration.service import NarrationService
from app.narration.submission import Submissions
from app.platform.api_keys import ApiKey
from app.platform.browser_sessions import BrowserSessions
from app.platform.key_cache import KeyCache
from app.platform.lanes import FairLanes
from app.platform.object_store import ObjectStore, configured
from app.platform.projects import EVERYONE, STRANGER, Tenant
from app.platform.quota import Quota
from app.platform.settings import Settings
from app.platform.signed_links import SignedLinks
from app.platform.tables import DEFAULT_PROJECT
from app.platform.task_queue import TaskQueue
from app.realtime.journal_store import JournalStore
from app.realtime.meter import MeteredRouter
from app.realtime.router import SessionRouter
from app.speech.voices import ModelCard, Voice
from app.voices.clones import CloneService
from app.voices.consents import ConsentService
from app.voices.ingest import Ingest
from app.voices.resolver import VoiceResolver
from app.voices.service import VoiceService
from app.voices.uploads import UploadService

log = logging.getLogger(__name__)

RECORDING_LANES, BOOK_LANES = 3, 3
"""Recordings, and books, that one front door inspects at once: each costs a core meanwhile. They wait for their own
kind alone, and no caller has more than two of either."""


def uploads_directory(settings: Settings) -> Path:
    """Beside the data, since a system's /tmp is often memory."""
    return settings.data_dir / "uploads"


class Drainable(Protocol):
    """An open socket with sessions on it, of whatever dialect; `app.main` ends them when the front door stops."""

    @property
    def busy(self) -> bool:
        """Whether the client is still to be notified, or a session is being spoken that cannot go on elsewhere."""
        ...

    def go_away(self, deadline_s: float) -> None:
        """Notify the client that the server stops, and start nothing more."""
        ...


@dataclass(frozen=True, eq=False)
class Services:
    """The parts of one front door, made by `app.main` and shared by its requests.

    What a request is handed (`TheServices`) is `seen_by` its caller: another project's things are not there.
    """

    settings: Settings
    catalog: Catalog
    router: SessionRouter
    resolver: VoiceResolver
    metrics: Metrics
    registry: Registry
    queue: TaskQueue
    links: SignedLinks
    browser_sessions: BrowserSessions
    journals: JournalStore
    keys: KeyCache
    key_watch: KeyWatch
    metering: Metering
    object_store: ObjectStore | None = None
    aligner: Aligner = field(default_factory=Aligner)
    recording_lanes: FairLanes = field(default_factory=lambda: FairLanes(RECORDING_LANES))
    book_lanes: FairLanes = field(default_factory=lambda: FairLanes(BOOK_LANES))
    watches: JobWatches = field(default_factory=JobWatches)
    sockets: set[Drainable] = field(default_factory=set)
    caller: ApiKey | None = None
    """The key of the request; None where authentication is off, or without one."""

    def seen_by(self, tenant: Tenant, caller: ApiKey | None = None) -> Services:
        """The same parts, with the catalogue as far as a tenant has it."""
        catalog, resolver = self.catalog.seen_by(tenant), self.resolver.seen_by(tenant)
        return replace(self, catalog=catalog, resolver=resolver, caller=caller)

    def of(self, caller: ApiKey | None) -> Services:
        """Bound to the holder of a key; None where authentication is off."""
        return self.seen_by(caller.tenant if caller else EVERYONE, caller)

    @property
    def key_id(self) -> str | None:
        return self.caller.id if self.caller else None

    @cached_property
    def meter(self) -> CallerMetering:
        """The caller's limits and use."""
        return self.metering.of(self.caller)

    @cached_property
    def session_router(self) -> MeteredRouter:
        """Opens sessions for the caller, within its limits, and records what they use."""
        return MeteredRouter(self.router, self.meter.session)

    @cached_property
    def quota(self) -> Quota:
        """What the caller's project may keep."""
        return Quota(self.catalog.database, self.meter.project_id, self.meter.project, self.meter.check_job)

    def held(self, end: Callable[[], None]) -> AbstractContextManager[None]:
        """A connection of the caller's, for as long as the context is open; `end` is called when its key ends."""
        return self.key_watch.held(self.key_id or "", end)

    async def audit(self, action: str, object_id: str) -> None:
        """Record an action of the caller in the audit log. A failure to write is logged, and undoes nothing."""
        try:
            await self.catalog.audit.add(action, object_id, key_id=self.key_id)
        except StoreUnavailable:
            log.warning("audit entry lost", extra={"action": action, "object": object_id, "key": self.key_id})

    @property
    def store(self) -> ObjectStore:
        """Raises StoreUnavailable where none is configured."""
        return configured(self.object_store)

    @property
    def uploads_directory(self) -> Path:
        """Where files wait to be probed. Raises StoreUnavailable where they could not be kept afterwards."""
        configured(self.object_store)
        return uploads_directory(self.settings)

    def models(self) -> tuple[ModelCard, ...]:
        """The models that are served now."""
        return self.router.models

    def tags_of(self, voice: Voice) -> tuple[str, ...]:
        """The tags of the model that speaks with a voice."""
        return next((card.tags for card in self.models() if card.name == voice.model), ())

    @cached_property
    def voices(self) -> VoiceService:
        return VoiceService(
            self.catalog.voices, self.catalog.jobs, self.registry, self.object_store, self.models, self.quota
        )

    @cached_property
    def clones(self) -> CloneService:
        return CloneService(
            self.settings,
            self.catalog.voices,
            self.catalog.jobs,
            self.queue,
            self.models,
            self.quota,
            key_id=self.key_id,
        )

    @cached_property
    def consents(self) -> ConsentService:
        return ConsentService(self.catalog.voices, self.voices, self.ingest)

    @cached_property
    def ingest(self) -> Ingest:
        return Ingest(self.settings, self.catalog.voices, self.object_store, self.recording_lanes, self.quota)

    @cached_property
    def uploads(self) -> UploadService:
        directory = uploads_directory(self.settings)
        return UploadService(self.settings.cloning, self.catalog.voices, self.object_store, self.ingest, directory)

    @cached_property
    def submissions(self) -> Submissions:
        return Submissions(
            settings=self.settings,
            narrations=self.catalog.narrations,
            object_store=self.object_store,
            queue=self.queue,
            find_voice=self.resolver.find,
            pronunciations=self.catalog.pronunciations.spoken_with,
            lanes=self.book_lanes,
            directory=uploads_directory(self.settings),
            quota=self.quota,
            key_id=self.key_id,
        )

    @cached_property
    def narrations(self) -> NarrationService:
        return NarrationService(
            narrations=self.catalog.narrations,
            object_store=self.object_store,
            queue=self.queue,
            find_clone=self.catalog.voices.get,
            submissions=self.submissions,
            quota=self.quota,
        )


def bearer_token(connection: HTTPConnection) -> str | None:
    """The key of an `Authorization: Bearer …` header, if there is one."""
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


TokenOf = Callable[[HTTPConnection], str | None]
"""Finds the key in a request: each dialect has its own place for it."""


def services_by(token_of: TokenOf) -> Callable[[HTTPConnection], Coroutine[Any, Any, Services]]:
    """A dependency: the services bound to the caller; without a key it sees no project.

    A wrong key is refused by `app.api.access`, where one is required, and so is a socket's. A key that cannot be looked
    up is refused here: the next look might succeed, and the request go on as nobody's.
    """

    async def services_of(connection: HTTPConnection) -> Services:
        services: Services = connection.app.state.services
        if not services.settings.auth:
            return services
        if token := token_of(connection):
            refused_later = AuthenticationFailed if connection.scope["type"] == "http" else CarillonError
            with suppress(refused_later):
                return services.of(await services.keys.authenticate(token))
        elif services.settings.openai.open_listings:
            return services.seen_by(Tenant(DEFAULT_PROJECT))
        return services.seen_by(STRANGER)

    return services_of


services_of = services_by(bearer_token)

TheServices = Annotated[Services, Depends(services_of)]
