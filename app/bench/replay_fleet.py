"""A fleet that replays: an embedded Valkey, SQLite tables, one front door as in production, and workers without engines
(`python -m workers.bench.replay`), each a process, all in a directory of their own that is gone afterwards.

Where the system can pin processes to cores and there are two, the front door has one for itself. What is configured for
this user's real fleet does not reach this one.
"""

from __future__ import annotations

import os
import secrets
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from app.bench.figures import Target
from app.catalog import Catalog
from app.fleet.registry import Registry, open_redis
from app.fleet.worker import Worker
from app.local import processes
from app.local.embedded import LOOPBACK, free_port, redis_url, valkey
from app.local.supervisor import Program, Supervisor
from app.platform.settings import PREFIX, Settings, load_settings
from app.speech.choices import Scope
from app.speech.voices import Voice

START_TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Cores:
    """Which cores the front door has, and which all the others; both empty where nothing can be pinned."""

    front: frozenset[int] = frozenset()
    rest: frozenset[int] = frozenset()

    @classmethod
    def of_this_machine(cls) -> Cores:
        have = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else []
        return cls(frozenset(have[-1:]), frozenset(have[:-1])) if len(have) > 1 else cls()

    def __str__(self) -> str:
        if not self.front:
            return "nothing is pinned: the front door shares its core"
        return f"the front door has core {_listed(self.front)}, everything else {_listed(self.rest)}"

    @contextmanager
    def only(self, cores: frozenset[int]) -> Iterator[None]:
        """This process, and what it starts meanwhile, on these cores."""
        if not cores or sys.platform != "linux":
            yield
            return
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, cores)
        try:
            yield
        finally:
            os.sched_setaffinity(0, before)


def _listed(cores: frozenset[int]) -> str:
    return ", ".join(map(str, sorted(cores)))


@asynccontextmanager
async def replay_fleet(
    *, workers: int, capacity: int, frames_per_message: int, cores: Cores, report: Callable[[str], None]
) -> AsyncIterator[Target]:
    """A fleet of `workers` with room for `capacity` sessions each, ready. It is stopped in any case."""
    with tempfile.TemporaryDirectory(prefix="carillon-bench-") as name:
        directory = Path(name)
        port, password = free_port(), SecretStr(secrets.token_hex(16))
        settings = _settings(directory, redis_url(port, password), capacity=capacity)
        async with Supervisor(directory / "logs", report=report) as supervisor:
            with cores.only(cores.rest):
                await supervisor.start(valkey(directory / "valkey", port=port, password=password))
                key = await _make_key(settings)
                await supervisor.start(_replayers(settings, workers, frames_per_message))
            with cores.only(cores.front):
                door = await supervisor.start(_front_door(settings))
            present = await _workers(settings)
            card = present[0].model
            yield Target(
                url=f"http://{LOOPBACK}:{settings.api_port}",
                key=key,
                voices=card.voices,
                front_door_pid=door.pid,
                redis_url=redis_url(port, password),
                stamped=True,
                direct=present,
                fleet_secret=settings.fleet_secret.get_secret_value(),
                direct_voice=Voice(id=card.voices[0], name=card.voices[0], model=card.name),
            )


def _settings(directory: Path, redis: str, *, capacity: int) -> Settings:
    return load_settings(
        data_dir=directory,
        database_url=f"sqlite+aiosqlite:///{directory / 'carillon.db'}",
        redis_url=SecretStr(redis),
        key_pepper=SecretStr(secrets.token_hex(16)),
        fleet_secret=SecretStr(secrets.token_hex(16)),
        auth=True,
        api_host=LOOPBACK,
        api_port=free_port(),
        capacity=capacity,
        drain_timeout_s=1.0,
        worker_ttl_s=START_TIMEOUT_S,  # a silent worker is not dead here: it waits for a core
    )


def _environment(settings: Settings) -> dict[str, str]:
    """What the programs need; what else is configured here is taken back."""
    assert settings.redis_url
    return {
        **{name: "" for name in os.environ if name.startswith(PREFIX)},
        "CARILLON_DATA_DIR": str(settings.data_dir),
        "CARILLON_DATABASE_URL": settings.database,
        "CARILLON_REDIS_URL": settings.redis_url.get_secret_value(),
        "CARILLON_KEY_PEPPER": settings.key_pepper.get_secret_value(),
        "CARILLON_FLEET_SECRET": settings.fleet_secret.get_secret_value(),
        "CARILLON_API_HOST": settings.api_host,
        "CARILLON_API_PORT": str(settings.api_port),
        "CARILLON_CAPACITY": str(settings.capacity),
        "CARILLON_DRAIN_TIMEOUT_S": str(settings.drain_timeout_s),
        "CARILLON_WORKER_TTL_S": str(settings.worker_ttl_s),
        "PYTHONUNBUFFERED": "1",
    }


def _replayers(settings: Settings, workers: int, frames_per_message: int) -> Program:
    async def ready(_: int) -> bool:
        return len(await _workers(settings)) == workers

    words = ("--workers", str(workers), "--frames", str(frames_per_message))
    return Program(
        name="replay",
        command=[sys.executable, "-P", "-m", "workers.bench.replay", *words],
        environment=_environment(settings),
        ready=ready,
        stage=processes.BEHIND_THE_FRONT_DOOR,
        start_timeout_s=START_TIMEOUT_S,
    )


def _front_door(settings: Settings) -> Program:
    return Program(
        name="api",
        command=[sys.executable, "-P", "-m", "app.cli.main", "api"],
        environment=_environment(settings),
        ready=processes.answers(settings.api_host, settings.api_port, "/readyz"),
        stage=processes.FRONT_DOOR,
        start_timeout_s=START_TIMEOUT_S,
    )


async def _make_key(settings: Settings) -> str:
    catalog = Catalog(settings.database, pepper=settings.key_pepper)
    try:
        await catalog.migrate()
        return (await catalog.keys.create("carillon bench", {Scope.ADMIN})).token
    finally:
        await catalog.aclose()


async def _workers(settings: Settings) -> tuple[Worker, ...]:
    redis = open_redis(settings)
    try:
        return await Registry(redis, settings).snapshot()
    finally:
        await redis.aclose()
