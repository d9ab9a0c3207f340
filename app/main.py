"""The composition root: settings in, the front door out. Nothing else builds its parts."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from importlib.metadata import version

import uvicorn
from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware

from app.api import clones, fleet, health, keys, narration_files, narrations, samples, uploads, voices
from app.api.connections import Connections, connection_limit, raise_descriptor_limit
from app.api.errors import add_error_handlers
from app.api.http_protocol import BoundedHttp, BoundedWebSocket
from app.api.lingering import Lingering
from app.api.local_callers import LocalCallers
from app.api.metrics import Metrics
from app.api.native.socket import router as sessions
from app.api.openai.speech import router as openai_speech
from app.api.openai.voices import router as openai_voices
from app.api.openapi import describe
from app.api.request_id import RequestIds
from app.api.services import Services, uploads_directory
from app.catalog import Catalog
from app.fleet.registry import Registry, open_redis
from app.fleet.view import open_fleet
from app.local.front_doors import shared_socket
from app.platform.broker import make_celery
from app.platform.logs import Throttle
from app.platform.object_store import ObjectStore
from app.platform.settings import Settings
from app.platform.signed_links import SignedLinks
from app.platform.task_queue import TaskQueue
from app.platform.workspace import remove_stale
from app.realtime.journal_store import open_journals
from app.realtime.router import SessionRouter
from app.voices.resolver import VoiceResolver


def create_app(settings: Settings) -> FastAPI:
    """The front door as an ASGI application. Its parts open and close with the lifespan."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_services(settings) as services:
            app.state.services = services
            yield

    app = FastAPI(title="Carillon", version=version("carillon"), lifespan=lifespan)
    describe(app)
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
    app.add_middleware(RequestIds)
    add_error_handlers(app)
    speaking = (openai_speech, openai_voices, sessions)
    edges = (voices, samples, uploads, clones, narrations, narration_files, fleet, keys, health)
    for router in (*speaking, *(edge.router for edge in edges)):
        app.include_router(router)
    return app


@asynccontextmanager
async def open_services(settings: Settings) -> AsyncIterator[Services]:
    """Everything behind the edges. Raises ConfigurationError when an address is missing."""
    await asyncio.to_thread(remove_stale, uploads_directory(settings))
    async with AsyncExitStack() as stack:
        redis = open_redis(settings)
        stack.push_async_callback(redis.aclose)
        catalog = Catalog(settings.database, pepper=settings.key_pepper)
        stack.push_async_callback(catalog.aclose)
        registry = Registry(redis, settings)
        view = await stack.enter_async_context(open_fleet(registry, settings))
        session_router = SessionRouter(view, registry, settings)
        stack.push_async_callback(session_router.aclose)
        object_store = ObjectStore(settings.store) if settings.store.endpoint_url else None
        if object_store is not None:
            stack.callback(object_store.close)
        yield Services(
            settings=settings,
            catalog=catalog,
            session_router=session_router,
            resolver=VoiceResolver(catalog.voices, session_router, aliases=settings.openai.voices),
            metrics=Metrics(lambda: session_router.workers),
            registry=registry,
            queue=TaskQueue(make_celery(settings)),
            journals=await stack.enter_async_context(open_journals(redis, settings)),
            links=SignedLinks(settings.key_pepper, ttl_s=settings.narration.link_ttl_s),
            object_store=object_store,
        )


MAX_SOCKET_MESSAGE_BYTES = 4 * 1024 * 1024
"""Well above what the protocol allows, so that its own refusal is heard; beyond it the socket closes with 1009."""

DRAIN_POLL_S = 0.05

log = logging.getLogger(__name__)


class Server(uvicorn.Server):
    """uvicorn, with a goodbye: sessions are told, and they and responses may end within `drain_timeout_s`."""

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
    door = Connections(limit=connection_limit(), per_address=settings.connections_per_address)
    config = uvicorn.Config(
        create_app(settings),
        host=settings.api_host,
        port=settings.api_port,
        http=partial(BoundedHttp, door=door),  # type: ignore[arg-type]
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
