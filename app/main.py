"""The composition root: settings in, the front door out. Nothing else builds its parts."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from importlib.metadata import version

import uvicorn
from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware

from app.api import (
    clones,
    docs,
    fleet,
    health,
    keys,
    narration_files,
    narrations,
    projects,
    pronunciations,
    samples,
    uploads,
    usage,
    voices,
)
from app.api.baseten import routers as baseten
from app.api.cartesia import routers as cartesia
from app.api.connections import Connections, connection_limit, raise_descriptor_limit
from app.api.elevenlabs import routers as elevenlabs
from app.api.errors import add_error_handlers
from app.api.http_protocol import BoundedHttp, BoundedWebSocket
from app.api.idempotency import Idempotency
from app.api.key_watch import open_key_watch
from app.api.lingering import Lingering
from app.api.local_callers import LocalCallers
from app.api.metering import Metering
from app.api.metrics import Metrics
from app.api.narration_preview import router as narration_preview
from app.api.native.socket import router as sessions
from app.api.openai.speech import router as openai_speech
from app.api.openai.voices import router as openai_voices
from app.api.openapi import describe
from app.api.rate_headers import RateHeaders
from app.api.request_id import RequestIds
from app.api.request_targets import RequestTargets
from app.api.sample_audio import router as sample_audio
from app.api.services import Services, uploads_directory
from app.api.traces import Traces
from app.api.usage_recorder import open_usage_recorder
from app.catalog import Catalog
from app.console.pages import add_console, add_look
from app.fleet.registry import Registry, open_redis
from app.fleet.view import open_fleet
from app.hearing.aligner import open_aligner
from app.local.front_doors import shared_socket
from app.platform.broker import make_celery
from app.platform.browser_sessions import BrowserSessions
from app.platform.key_cache import KeyCache
from app.platform.logs import Throttle
from app.platform.loop_lag import loop_lag
from app.platform.object_store import ObjectStore
from app.platform.rate_limits import RateLimiter
from app.platform.session_counts import SessionCounts
from app.platform.settings import Settings
from app.platform.signed_links import SignedLinks
from app.platform.task_queue import TaskQueue
from app.platform.tracing import configure_tracing
from app.platform.workspace import remove_stale
from app.realtime.journal_store import open_journals
from app.realtime.router import SessionRouter
from app.talk.edge import router as talk_router
from app.talk.talk import open_talk
from app.voices.resolver import PublishedVoices, VoiceResolver


def create_app(settings: Settings, *, connections: Callable[[], int] = int) -> FastAPI:
    """The front door as an ASGI application. Its parts open and close with the lifespan.

    `connections` says, for the metrics, how many are open.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        parts = open_services(settings, connections=connections)
        async with parts as services, _talk(app, settings, services):
            app.state.services = services
            yield

    app = FastAPI(title="Carillon", version=version("carillon"), lifespan=lifespan, docs_url=None, redoc_url=None)
    describe(app, max_input_chars=settings.session.max_input_chars)
    app.add_middleware(Idempotency)
    app.add_middleware(RequestTargets)
    app.add_middleware(Lingering)
    if not settings.auth:
        app.add_middleware(LocalCallers, allowed_hosts=settings.allowed_hosts)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["*"],
        )
    app.add_middleware(RateHeaders)
    if settings.tracing.endpoint is not None:
        app.add_middleware(Traces)
    app.add_middleware(RequestIds)
    add_error_handlers(app)
    speaking = (openai_speech, openai_voices, sessions)
    voices_edges = (voices, pronunciations, samples, uploads, clones)
    edges = (*voices_edges, narrations, narration_files, fleet, keys, projects, usage, health, docs)
    dialects = (*elevenlabs, *cartesia, *baseten)
    # ElevenLabs' come first: some of their paths are ours too, and their clients' key tells which are meant.
    routers = [*dialects, *speaking, sample_audio, narration_preview, *(edge.router for edge in edges)]
    if settings.talk.enabled:
        routers.append(talk_router)
    for router in routers:  # `include_router` would make each of the routes anew, from its function's signature
        app.router.routes.extend(router.routes)
    if settings.console.enabled:
        add_console(app, settings)
    if settings.console.enabled or settings.talk.enabled:
        add_look(app)
    return app


@asynccontextmanager
async def _talk(app: FastAPI, settings: Settings, services: Services) -> AsyncIterator[None]:
    """The talk beside the edges: a client of them, which hangs up when the front door stops."""
    if not settings.talk.enabled:
        yield
        return
    async with open_talk(settings) as talk:
        app.state.talk = talk
        services.sockets.add(talk)
        yield


@asynccontextmanager
async def open_services(settings: Settings, *, connections: Callable[[], int] = int) -> AsyncIterator[Services]:
    """Everything behind the edges. Raises ConfigurationError when an address is missing."""
    await asyncio.to_thread(remove_stale, uploads_directory(settings))
    async with AsyncExitStack() as stack:
        redis = open_redis(settings)
        stack.push_async_callback(redis.aclose)
        catalog = Catalog(settings.database, pepper=settings.key_pepper)
        stack.push_async_callback(catalog.aclose)
        registry = Registry(redis, settings)
        view = await stack.enter_async_context(open_fleet(registry, settings))
        session_router = SessionRouter(view, registry, settings, pronunciations=catalog.pronunciations.spoken_with)
        stack.push_async_callback(session_router.aclose)
        object_store = ObjectStore(settings.store) if settings.store.endpoint_url else None
        if object_store is not None:
            stack.callback(object_store.close)
        passes = settings.limits.when_redis_is_away == "open"
        metrics = Metrics(
            lambda: session_router.workers,
            settings,
            waiting=lambda: session_router.placer.waiting,
            connections=connections,
        )
        await stack.enter_async_context(loop_lag(metrics.lagged))
        yield Services(
            settings=settings,
            catalog=catalog,
            router=session_router,
            resolver=VoiceResolver(
                PublishedVoices(catalog.voices, aliases=settings.openai.voices), catalog.voices, session_router
            ),
            metrics=metrics,
            registry=registry,
            queue=TaskQueue(make_celery(settings)),
            keys=KeyCache(catalog.keys),
            key_watch=await stack.enter_async_context(open_key_watch(catalog.keys)),
            metering=Metering(
                settings.limits,
                settings.prices,
                RateLimiter(redis, open_when_away=passes),
                SessionCounts(redis, open_when_away=passes),
                recorder=await stack.enter_async_context(open_usage_recorder(catalog.usage)),
                usage=catalog.usage,
                metrics=metrics,
                patience_s=settings.session.queue_timeout_s,
                places=lambda: sum(worker.capacity for worker in session_router.workers),
            ),
            journals=await stack.enter_async_context(open_journals(redis, settings)),
            browser_sessions=BrowserSessions(redis),
            links=SignedLinks(settings.key_pepper, ttl_s=settings.narration.link_ttl_s),
            aligner=await stack.enter_async_context(open_aligner()),
            object_store=object_store,
        )


MAX_SOCKET_MESSAGE_BYTES = 4 * 1024 * 1024
"""Well above what the protocol allows, so that its own refusal is heard; beyond it the socket closes with 1009."""

DRAIN_POLL_S = 0.05

log = logging.getLogger(__name__)


class Server(uvicorn.Server):
    """uvicorn, with a goodbye: sessions are notified, and they and responses may end within `drain_timeout_s`."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        services: Services | None = getattr(self.config.app.state, "services", None)  # type: ignore[union-attr]
        if services is not None:
            clock = asyncio.get_running_loop().time
            deadline = clock() + services.settings.drain_timeout_s
            await drain(services)
            self.config.timeout_graceful_shutdown = max(1, math.ceil(deadline - clock()))
        await super().shutdown(sockets)


async def drain(services: Services) -> None:
    """Say goaway on every socket and wait until none has a session that can go on nowhere else, at most
    `drain_timeout_s`."""
    timeout_s = services.settings.drain_timeout_s
    for client in tuple(services.sockets):
        client.go_away(timeout_s)
    try:
        async with asyncio.timeout(timeout_s):
            while any(client.busy for client in services.sockets):
                await asyncio.sleep(DRAIN_POLL_S)
    except TimeoutError:
        log.warning("drain timeout", extra={"sessions": sum(client.busy for client in services.sockets)})


class _Untraced(logging.Filter):
    """A client's malformed text is one line in the log, not a traceback of the server's."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and isinstance(record.exc_info[1], UnicodeDecodeError):
            record.levelno, record.levelname, record.exc_info = logging.WARNING, "WARNING", None
        return True


_UNTRACED = _Untraced()
_SPARING = Throttle(per_minute=600)
"""What strangers can have uvicorn say, and tracebacks, of which the first tell enough."""


def make_server(settings: Settings) -> Server:
    """The front door's server, not yet started. Port 0 takes a free one."""
    connections = Connections(limit=connection_limit(), per_address=settings.connections_per_address)
    config = uvicorn.Config(
        create_app(settings, connections=connections.__len__),
        host=settings.api_host,
        port=settings.api_port,
        http=partial(BoundedHttp, connections=connections),  # type: ignore[arg-type]
        ws=BoundedWebSocket,
        log_config=None,
        access_log=False,
        ws_max_size=MAX_SOCKET_MESSAGE_BYTES,
        ws_per_message_deflate=False,
        # A slow listener's pong waits behind its audio. SlowReader and the idle timeout find those who are gone.
        ws_ping_timeout=None,
    )
    logging.getLogger("uvicorn.error").addFilter(_UNTRACED)
    logging.getLogger("uvicorn.error").addFilter(_SPARING)
    return Server(config)


YOUNG_OBJECTS = 20_000
"""How many more objects there are before the youngest are looked through: some dozens for each of 500 sessions."""


def serve(settings: Settings, *, shared_port: bool = False) -> None:
    """Run the front door until SIGINT or SIGTERM; with `shared_port`, others may listen where it does."""
    configure_tracing(settings, "api")
    raise_descriptor_limit()
    server = make_server(settings)
    _spare_the_collector()
    server.run([shared_socket(settings.api_host, settings.api_port)] if shared_port else None)


def _spare_the_collector() -> None:
    """Let garbage collection stop no frame on its way.

    A look through everything took 250 ms, and through the young ones of 500 sessions 5 ms, several times a second
    (measured). What is here now, which is modules for the most part, stays for good and need not be looked at; and
    nearly all that comes is freed by its count, without the collector.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS)
