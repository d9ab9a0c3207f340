"""A data directory as every command sees it: the secrets that are kept there, and the fleet that runs on it.

It knows no store and no server; `app.local.embedded` starts those, and `app.local.up` writes `run.json`.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError, field_serializer

from app.errors import ConfigurationError
from app.platform.settings import Settings

WEBHOOK_SECRET_BYTES = 32
"""Standard Webhooks asks for 24 to 64."""


class Secrets(BaseModel):
    """What is made up once for a data directory and kept there: a restart finds its stores and keys again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key_pepper: SecretStr
    fleet_secret: SecretStr
    redis_password: SecretStr
    store_access_key: SecretStr
    store_secret_key: SecretStr
    webhook_secret: SecretStr = SecretStr("")
    """`whsec_…`, for receivers to check by; empty only in a file of an earlier version."""
    api_token: SecretStr | None = None
    """The key that `up` prints."""

    @field_serializer("*", when_used="json")
    def _reveal(self, value: SecretStr | None) -> str | None:
        return value.get_secret_value() if value else None


def load_secrets(data_dir: Path) -> Secrets:
    """The secrets of `data_dir`, made on first use. Raises ConfigurationError for a damaged file."""
    path = secrets_file(data_dir)
    if not path.exists():
        names = ("key_pepper", "fleet_secret", "redis_password", "store_access_key", "store_secret_key")
        made = {name: SecretStr(secrets.token_hex(24)) for name in names}
        save_secrets(data_dir, Secrets(**made, webhook_secret=_new_webhook_secret()))
    try:
        kept = Secrets.model_validate_json(path.read_text("utf-8"))
    except ValidationError as error:
        raise ConfigurationError(
            f"{path} is damaged ({error.error_count()} faults); restore it, or delete {data_dir}"
        ) from None
    if not kept.webhook_secret.get_secret_value():
        kept = kept.model_copy(update={"webhook_secret": _new_webhook_secret()})
        save_secrets(data_dir, kept)
    return kept


def _new_webhook_secret() -> SecretStr:
    return SecretStr("whsec_" + base64.b64encode(secrets.token_bytes(WEBHOOK_SECRET_BYTES)).decode())


def secrets_file(data_dir: Path) -> Path:
    return data_dir / "secrets.json"


def save_secrets(data_dir: Path, made: Secrets) -> None:
    """Write the secrets so that only this user can read them, whole or not at all."""
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(secrets_file(data_dir), made.model_dump_json(indent=2))


def write_private(path: Path, text: str) -> None:
    """Replace `path` by a file with mode 0600."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    partial.replace(path)


def with_local_secrets(settings: Settings) -> Settings:
    """`settings`, with the data directory's secrets where none are configured.

    Where both the pepper and the fleet's secret are configured, as in a fleet of several machines, no directory's are
    wanted: a webhook secret of each machine would be of no use to a receiver.
    """
    if settings.key_pepper.get_secret_value() and settings.fleet_secret.get_secret_value():
        return settings
    return with_secrets(settings, load_secrets(settings.data_dir))


def with_secrets(settings: Settings, local: Secrets) -> Settings:
    """`settings`, with these secrets where none are configured."""
    cloning = settings.cloning
    if not cloning.webhook_secret.get_secret_value():
        cloning = cloning.model_copy(update={"webhook_secret": local.webhook_secret})
    return settings.model_copy(
        update={
            "key_pepper": settings.key_pepper if settings.key_pepper.get_secret_value() else local.key_pepper,
            "fleet_secret": settings.fleet_secret if settings.fleet_secret.get_secret_value() else local.fleet_secret,
            "cloning": cloning,
        }
    )


def read_run_file(data_dir: Path) -> dict[str, Any] | None:
    """What `run.json` says, or None when nothing runs on `data_dir`."""
    try:
        return json.loads((data_dir / "run.json").read_text("utf-8"))
    except FileNotFoundError:
        return None
