"""What a data directory keeps for the next start."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from pydantic import SecretStr

from app.errors import ConfigurationError
from app.local import processes
from app.platform import webhooks
from app.platform.data_dir import load_secrets, save_secrets, with_local_secrets, with_secrets
from app.platform.settings import CloningSettings, Settings, StoreSettings

pytestmark = pytest.mark.anyio


async def test_webhooks_can_be_signed_with_what_was_made_up(tmp_path: Path) -> None:
    settings = with_secrets(Settings(data_dir=tmp_path), load_secrets(tmp_path))
    await webhooks.check("https://192.0.2.1/hook", settings.cloning.model_copy(update={"webhook_private_hosts": True}))
    assert settings.cloning.webhook_secret.get_secret_value().startswith("whsec_")


def test_every_process_of_the_fleet_signs_with_the_same(tmp_path: Path) -> None:
    configured = Settings(
        data_dir=tmp_path, redis_url=SecretStr("redis://host"), store=StoreSettings(endpoint_url="http://host")
    )
    environment = processes.environment(with_secrets(configured, load_secrets(tmp_path)))
    kept = json.loads((tmp_path / "secrets.json").read_text("utf-8"))
    assert environment["CARILLON_CLONING__WEBHOOK_SECRET"] == kept["webhook_secret"]


def test_secrets_of_an_earlier_version_load_and_get_what_they_lack(tmp_path: Path) -> None:
    made = load_secrets(tmp_path)
    path = tmp_path / "secrets.json"
    earlier = json.loads(path.read_text("utf-8"))
    del earlier["webhook_secret"]
    path.write_text(json.dumps(earlier), "utf-8")
    mended = load_secrets(tmp_path)
    assert mended.webhook_secret.get_secret_value().startswith("whsec_")
    assert mended == load_secrets(tmp_path)
    assert mended.model_copy(update={"webhook_secret": made.webhook_secret}) == made
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_is_configured_is_not_replaced(tmp_path: Path) -> None:
    configured = Settings(
        data_dir=tmp_path, key_pepper=SecretStr("p"), cloning=CloningSettings(webhook_secret=SecretStr("whsec_own"))
    )
    settings = with_local_secrets(configured)
    assert settings.key_pepper.get_secret_value() == "p"
    assert settings.cloning.webhook_secret.get_secret_value() == "whsec_own"
    assert settings.fleet_secret == load_secrets(tmp_path).fleet_secret


def test_a_machine_of_a_larger_fleet_makes_up_nothing_of_its_own(tmp_path: Path) -> None:
    configured = Settings(data_dir=tmp_path, key_pepper=SecretStr("p"), fleet_secret=SecretStr("f"))
    assert with_local_secrets(configured) is configured
    assert list(tmp_path.iterdir()) == []


def test_damaged_secrets_are_named(tmp_path: Path) -> None:
    save_secrets(tmp_path, load_secrets(tmp_path))
    (tmp_path / "secrets.json").write_text('{"key_pepper": 1}', "utf-8")
    with pytest.raises(ConfigurationError, match=r"secrets\.json is damaged"):
        load_secrets(tmp_path)
