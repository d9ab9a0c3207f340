"""A front door on a free port, with a real registry and catalogue, and workers whose engine is a tone generator."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from app.catalog import Catalog
from app.fleet.registry import Registry, open_redis
from app.main import Server, make_server
from app.platform.object_store import ObjectStore
from app.platform.settings import (
    CloningSettings,
    ConsoleSettings,
    NarrationSettings,
    OpenAISettings,
    SessionSettings,
    Settings,
    StoreSettings,
)
from app.speech.choices import Scope
from tests.support.deadlines import HANG_S
from tests.support.fake_worker import FakeWorker, running_worker
from tests.support.library import Library
from tests.support.session_client import SessionsClient, sessions_client


@dataclass(frozen=True)
class House:
    """A running front door, a key for it, and its registry."""

    url: str
    key: str
    settings: Settings
    registry: Registry
    catalog: Catalog
    http: httpx.AsyncClient
    server: Server

    @property
    def sessions_url(self) -> str:
        return self.url.replace("http", "ws") + "/v1/sessions"

    @asynccontextmanager
    async def holder_of(self, *scopes: Scope) -> AsyncIterator[httpx.AsyncClient]:
        """A client whose key has these scopes alone."""
        key = await self.catalog.keys.create("narrow", set(scopes))
        async with _client(self.url, key.token) as http:
            yield http

    def worker(self, **fields: object) -> AbstractAsyncContextManager[FakeWorker]:
        """A worker the front door knows of when the context is entered."""
        return self._known(running_worker(self.registry, self.settings, **fields))  # type: ignore[arg-type]

    @asynccontextmanager
    async def _known(self, running: AbstractAsyncContextManager[FakeWorker]) -> AsyncIterator[FakeWorker]:
        async with running as worker:
            async with asyncio.timeout(HANG_S):
                while worker.id not in await self._workers():
                    await asyncio.sleep(0.02)
            yield worker

    async def _workers(self) -> list[str]:
        return [worker["id"] for worker in (await self.http.get("/v1/fleet")).json()["workers"]]


NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Nothing here speaks TLS; httpx would read all the certificates of the machine for every client."""

OpenHouse = Callable[..., AbstractAsyncContextManager[House]]


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalogue with its tables, made once."""
    directory = tmp_path_factory.mktemp("catalogue")

    async def make() -> None:
        settings = Settings(data_dir=directory)
        catalog = Catalog(settings.database, pepper=settings.key_pepper)
        await catalog.migrate()
        await catalog.aclose()

    asyncio.run(make())
    return directory


@pytest.fixture
def open_house(valkey: str, empty_database: Path, tmp_path: Path) -> OpenHouse:
    """Open a front door; keyword arguments but for those named are session settings."""

    @asynccontextmanager
    async def opened(
        *,
        store: StoreSettings | None = None,
        cloning: CloningSettings | None = None,
        narration: NarrationSettings | None = None,
        openai: OpenAISettings | None = None,
        cors_origins: tuple[str, ...] = (),
        console: bool = True,
        **limits: object,
    ) -> AsyncIterator[House]:
        shutil.copytree(empty_database, tmp_path, dirs_exist_ok=True)
        settings = Settings(
            data_dir=tmp_path,
            redis_url=SecretStr(valkey),
            key_pepper=SecretStr("pepper"),
            fleet_secret=SecretStr("fleet"),
            fleet_refresh_s=0.02,
            drain_timeout_s=3,
            store=store or StoreSettings(),
            cloning=cloning or CloningSettings(),
            narration=narration or NarrationSettings(),
            openai=openai or OpenAISettings(),
            cors_origins=cors_origins,
            console=ConsoleSettings(enabled=console),
            session=SessionSettings(**{"queue_timeout_s": 0.2, **limits}),  # type: ignore[arg-type]
        )
        catalog = Catalog(settings.database, pepper=settings.key_pepper)
        key = await catalog.keys.create("test", {Scope.SPEAK, Scope.FLEET})
        redis = open_redis(settings)
        await redis.flushdb()
        async with serving(settings) as (url, server), _client(url, key.token) as http:
            yield House(url, key.token, settings, Registry(redis, settings), catalog, http, server)
        await redis.aclose()
        await catalog.aclose()

    return opened


@pytest.fixture
async def house(open_house: OpenHouse) -> AsyncIterator[House]:
    async with open_house() as house:
        yield house


@pytest.fixture
async def worker(house: House) -> AsyncIterator[FakeWorker]:
    async with house.worker() as worker:
        yield worker


@pytest.fixture
async def client(house: House, worker: FakeWorker) -> AsyncIterator[SessionsClient]:
    async with sessions_client(house.sessions_url, house.key) as client:
        yield client


@dataclass(frozen=True)
class Studio:
    """A front door with a store and a worker, as somebody who clones sees it: `http` has the scope `clone` alone."""

    house: House
    http: httpx.AsyncClient
    store: ObjectStore

    async def voice(self, name: str = "Mary") -> str:
        """The id of a new voice."""
        answer = await self.http.post("/v1/voices", json={"name": name})
        assert answer.status_code == 201, answer.text
        return answer.json()["id"]

    def keys(self, voice_id: str) -> list[str]:
        """What the store has of a voice."""
        return list(self.store.keys(f"voices/{voice_id}/"))

    @property
    def waiting_files(self) -> list[Path]:
        """What lies in the front door's own directory for uploads."""
        return list((self.house.settings.data_dir / "uploads").rglob("*"))


OpenStudio = Callable[..., AbstractAsyncContextManager[Studio]]


@pytest.fixture
def open_studio(open_house: OpenHouse, rclone: StoreSettings, object_store: ObjectStore) -> OpenStudio:
    """Open a studio; keyword arguments are settings of cloning."""

    @asynccontextmanager
    async def opened(**cloning: object) -> AsyncIterator[Studio]:
        store = rclone.model_copy(update={"bucket": object_store.bucket})
        async with (
            open_house(store=store, cloning=CloningSettings(**cloning)) as house,  # type: ignore[arg-type]
            house.worker(),
            house.holder_of(Scope.CLONE) as http,
        ):
            yield Studio(house, http, object_store)

    return opened


@pytest.fixture
async def studio(open_studio: OpenStudio) -> AsyncIterator[Studio]:
    async with open_studio() as studio:
        yield studio


OpenLibrary = Callable[..., AbstractAsyncContextManager[Library]]


@pytest.fixture
def open_library(open_house: OpenHouse, rclone: StoreSettings, object_store: ObjectStore) -> OpenLibrary:
    """Open a library; keyword arguments are settings of narration."""

    @asynccontextmanager
    async def opened(**narration: object) -> AsyncIterator[Library]:
        store = rclone.model_copy(update={"bucket": object_store.bucket})
        async with (
            open_house(store=store, narration=NarrationSettings(**narration)) as house,  # type: ignore[arg-type]
            house.worker(),
            house.holder_of(Scope.NARRATE) as http,
        ):
            yield Library(house, http, object_store)

    return opened


@pytest.fixture
async def library(open_library: OpenLibrary) -> AsyncIterator[Library]:
    async with open_library() as library:
        yield library


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[tuple[str, Server]]:
    """The front door's own server on a free port, and its address."""
    server = make_server(settings)
    listening = socket.create_server(("127.0.0.1", 0))
    task = asyncio.create_task(server._serve([listening]))
    try:
        async with asyncio.timeout(HANG_S):
            while not server.started:
                assert not task.done(), task.exception()
                await asyncio.sleep(0.01)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", server
    finally:
        server.should_exit = True
        await task


def _client(url: str, key: str) -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.AsyncClient(base_url=url, headers=headers, timeout=HANG_S, trust_env=False, verify=NO_TLS)
