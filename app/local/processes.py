"""The programs that `carillon up` starts besides the stores: the other commands of this package.

Each gets the stores' addresses by variables, and is probed on its own port, or by its mark in Redis.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.local.embedded import LOOPBACK, free_port
from app.local.supervisor import Program
from app.platform.broker import heartbeat_key
from app.platform.settings import Settings

BEHIND_THE_FRONT_DOOR, FRONT_DOOR = 1, 2
"""Stages of stopping: no session finds its worker gone before its front door, nor any of them the stores of stage 0."""

PROBE_TIMEOUT_S = 4.0
"""Below the supervisor's own timeout, which counts as a failure."""


def environment(settings: Settings) -> dict[str, str]:
    """What the children need beyond the variables they inherit: where the embedded parts are, and the secrets; and this
    environment's programs on the path, for what is compiled at run time.
    """
    store = settings.store
    assert settings.redis_url and store.endpoint_url
    return {
        "CARILLON_DATA_DIR": str(settings.data_dir),
        "CARILLON_DATABASE_URL": settings.database,
        "CARILLON_REDIS_URL": settings.redis_url.get_secret_value(),
        "CARILLON_STORE__ENDPOINT_URL": store.endpoint_url,
        "CARILLON_STORE__ACCESS_KEY": store.access_key.get_secret_value(),
        "CARILLON_STORE__SECRET_KEY": store.secret_key.get_secret_value(),
        "CARILLON_KEY_PEPPER": settings.key_pepper.get_secret_value(),
        "CARILLON_FLEET_SECRET": settings.fleet_secret.get_secret_value(),
        "CARILLON_CLONING__WEBHOOK_SECRET": settings.cloning.webhook_secret.get_secret_value(),
        "CARILLON_OPENAI__OPEN_LISTINGS": str(_lists_openly(settings)).lower(),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "PYTHONUNBUFFERED": "1",
    }


def _lists_openly(settings: Settings) -> bool:
    """Models and voices are no secret on one machine, and existing clients list them without a key."""
    chosen = "open_listings" in settings.openai.model_fields_set
    return settings.openai.open_listings if chosen else True


def _command(*words: str) -> list[str]:
    return [sys.executable, "-P", "-m", "app.cli.main", *words]


def worker(name: str, id: str, settings: Settings, environment: Mapping[str, str]) -> Program:
    """A worker; `name` is the program's here, `id` the worker's in the whole fleet."""
    port = free_port()
    return Program(
        name=name,
        command=_command("worker"),
        environment={
            **environment,
            "CARILLON_WORKER_ID": id,
            "CARILLON_WORKER_HOST": LOOPBACK,
            "CARILLON_WORKER_PORT": str(port),
        },
        stage=BEHIND_THE_FRONT_DOOR,
        ready=answers(LOOPBACK, port, "/healthz"),
        start_timeout_s=settings.engine.startup_timeout_s,
        grace_s=settings.drain_timeout_s + settings.handover_timeout_s + 5,
    )


def tasks(settings: Settings, environment: Mapping[str, str]) -> Program:
    """A tasks process that works on every queue."""
    assert settings.redis_url
    return Program(
        name="tasks",
        command=_command("tasks"),
        environment=environment,
        stage=BEHIND_THE_FRONT_DOOR,
        ready=beats(settings.redis_url.get_secret_value()),
        start_timeout_s=180,
        grace_s=40,  # beyond Celery's soft shutdown
        watchdog_s=60,
    )


def front_door(host: str, port: int, settings: Settings, environment: Mapping[str, str]) -> Program:
    return Program(
        name="api",
        command=_command("api"),
        environment={**environment, "CARILLON_API_PORT": str(port)},
        stage=FRONT_DOOR,
        ready=answers(host, port, "/healthz"),
        start_timeout_s=180,
        grace_s=settings.drain_timeout_s + 10,
    )


def beats(redis_url: str) -> Callable[[int], Awaitable[bool]]:
    """A probe that holds while a tasks process leaves its mark in Redis.

    An unavailable Redis does not fail the probe of a process seen before: it may be in the middle of a training.
    """
    seen: set[int] = set()

    async def ready(pid: int) -> bool:
        try:
            async with (
                asyncio.timeout(PROBE_TIMEOUT_S),
                Redis.from_url(redis_url, socket_timeout=2, socket_connect_timeout=2) as redis,
            ):
                here = bool(await redis.exists(heartbeat_key(f"{socket.gethostname()}-{pid}")))
        except (RedisError, OSError, TimeoutError):
            return pid in seen
        if here:
            seen.add(pid)
        return here

    return ready


def answers(host: str, port: int, path: str) -> Callable[[int], Awaitable[bool]]:
    """A probe that holds while a GET of `path` answers 200."""
    request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()

    async def ready(_: int) -> bool:
        try:
            reader, writer = await asyncio.open_connection(host, port)
        except OSError:
            return False
        try:
            writer.write(request)
            return b" 200 " in await reader.readline()
        finally:
            writer.close()

    return ready
