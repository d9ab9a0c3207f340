"""What every edge is handed: the front door's parts, and the use-cases that are made of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Protocol

from fastapi import Depends
from starlette.requests import HTTPConnection

from app.api.metrics import Metrics
from app.api.sse import JobWatches
from app.catalog import Catalog
from app.fleet.registry import Registry
from app.narration.service import NarrationService
from app.narration.submission import Submissions
from app.platform.browser_sessions import BrowserSessions
from app.platform.lanes import FairLanes
from app.platform.object_store import ObjectStore, configured
from app.platform.settings import Settings
from app.platform.signed_links import SignedLinks
from app.platform.task_queue import TaskQueue
from app.realtime.journal_store import JournalStore
from app.realtime.router import SessionRouter
from app.speech.voices import ModelCard
from app.voices.clones import CloneService
from app.voices.consents import ConsentService
from app.voices.ingest import Ingest
from app.voices.resolver import VoiceResolver
from app.voices.service import VoiceService
from app.voices.uploads import UploadService

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
    session_router: SessionRouter
    resolver: VoiceResolver
    metrics: Metrics
    registry: Registry
    queue: TaskQueue
    links: SignedLinks
    browser_sessions: BrowserSessions
    journals: JournalStore
    object_store: ObjectStore | None = None
    recording_lanes: FairLanes = field(default_factory=lambda: FairLanes(RECORDING_LANES))
    book_lanes: FairLanes = field(default_factory=lambda: FairLanes(BOOK_LANES))
    watches: JobWatches = field(default_factory=JobWatches)
    sockets: set[Drainable] = field(default_factory=set)

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
        return self.session_router.models

    @cached_property
    def voices(self) -> VoiceService:
        return VoiceService(self.catalog.voices, self.catalog.jobs, self.registry, self.object_store, self.models)

    @cached_property
    def clones(self) -> CloneService:
        return CloneService(self.settings, self.catalog.voices, self.catalog.jobs, self.queue, self.models)

    @cached_property
    def consents(self) -> ConsentService:
        return ConsentService(self.catalog.voices, self.voices, self.ingest)

    @cached_property
    def ingest(self) -> Ingest:
        return Ingest(self.settings, self.catalog.voices, self.object_store, self.recording_lanes)

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
            lanes=self.book_lanes,
            directory=uploads_directory(self.settings),
        )

    @cached_property
    def narrations(self) -> NarrationService:
        return NarrationService(
            narrations=self.catalog.narrations,
            object_store=self.object_store,
            queue=self.queue,
            find_clone=self.catalog.voices.get,
            submissions=self.submissions,
        )


def services_of(connection: HTTPConnection) -> Services:
    return connection.app.state.services


TheServices = Annotated[Services, Depends(services_of)]
