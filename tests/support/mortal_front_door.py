"""A front door that can be killed within the test's process: from one moment on nothing it does is heard of outside.

Its Redis is reached through a forwarder, which the kill cuts before the sockets of its clients are broken. It can then
write no journal, release no lease and say no goodbye, as after `kill -9`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

from pydantic import SecretStr

from app.api.services import Services
from app.main import Server
from app.platform.settings import Settings
from tests.api.conftest import serving
from tests.support.deadlines import HANG_S
from tests.support.fake_worker import FakeWorker


class Forwarder:
    """Forwards TCP connections to `host:port` until it is cut; then it takes none."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._over = False

    async def start(self, port: int = 0) -> int:
        """The port it listens on; 0 takes a free one."""
        self._over = False
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", port)
        return self._server.sockets[0].getsockname()[1]

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._over:
            writer.transport.abort()
            return
        there_reader, there_writer = await asyncio.open_connection(self._host, self._port)
        self._writers |= {writer, there_writer}
        await asyncio.gather(self._pump(reader, there_writer), self._pump(there_reader, writer))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.transport.abort()
        self._writers.discard(writer)

    def cut(self) -> None:
        """Break every connection, and refuse new ones."""
        assert self._server
        self._over = True
        loop = asyncio.get_running_loop()
        for listening in self._server.sockets:
            loop.remove_reader(listening.fileno())
        # Who has just been let in is not known to the server before its next turn, and would be left open by a close.
        loop.call_soon(self._server.close)
        for writer in tuple(self._writers):
            writer.transport.abort()


def by_port(redis_url: SecretStr, port: int) -> SecretStr:
    """The address of a Redis as it is by another port of this machine."""
    address = urlsplit(redis_url.get_secret_value())
    user, at, _ = address.netloc.rpartition("@")
    return SecretStr(address._replace(netloc=f"{user}{at}127.0.0.1:{port}").geturl())


class MortalDoor:
    def __init__(self, url: str, server: Server, redis: Forwarder) -> None:
        self.url = url
        self.sessions_url = url.replace("http", "ws") + "/v1/sessions"
        self.server = server
        self._redis = redis

    async def until_known(self, worker: FakeWorker) -> None:
        """Return once it has seen the worker in the registry."""
        services: Services = self.server.config.app.state.services  # type: ignore[union-attr]
        async with asyncio.timeout(HANG_S):
            while worker.id not in [known.id for known in services.router.workers]:
                await asyncio.sleep(0.01)

    def lose_redis(self) -> None:
        """Cut it off from Redis alone."""
        self._redis.cut()

    def kill(self) -> None:
        self.lose_redis()
        for connection in tuple(self.server.server_state.connections):
            connection.transport.abort()  # type: ignore[union-attr]


@asynccontextmanager
async def mortal_door(settings: Settings) -> AsyncIterator[MortalDoor]:
    """Another front door of the fleet of `settings`."""
    assert settings.redis_url
    address = urlsplit(settings.redis_url.get_secret_value())
    assert address.hostname and address.port
    forwarder = Forwarder(address.hostname, address.port)
    url = by_port(settings.redis_url, await forwarder.start())
    try:
        async with serving(settings.model_copy(update={"redis_url": url})) as (door_url, server):
            yield MortalDoor(door_url, server, forwarder)
    finally:
        forwarder.cut()
