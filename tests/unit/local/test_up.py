"""The pieces of `carillon up` that need no process of their own."""

from __future__ import annotations

import io
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest
from pydantic import SecretStr

from app.catalog import Catalog
from app.errors import ConfigurationError
from app.local.embedded import LOOPBACK, free_port
from app.local.up import front_door_port, locked, prepare_catalog, up, worker_family
from app.platform.data_dir import load_secrets
from app.platform.settings import Settings

pytestmark = pytest.mark.anyio


async def test_the_owners_key_is_the_same_at_every_start(settings: Settings) -> None:
    first = await prepare_catalog(settings, load_secrets(settings.data_dir))
    second = await prepare_catalog(settings, load_secrets(settings.data_dir))
    assert first == second


async def test_a_revoked_owners_key_is_replaced(settings: Settings) -> None:
    first = await prepare_catalog(settings, load_secrets(settings.data_dir))
    assert first
    catalog = Catalog(settings.database, pepper=settings.key_pepper)
    await catalog.keys.revoke((await catalog.keys.authenticate(first)).id)
    second = await prepare_catalog(settings, load_secrets(settings.data_dir))
    assert second
    assert second != first
    await catalog.keys.authenticate(second)
    await catalog.aclose()


async def test_a_fleet_without_keys_gets_none(settings: Settings) -> None:
    open_to_all = settings.model_copy(update={"auth": False})
    assert await prepare_catalog(open_to_all, load_secrets(settings.data_dir)) is None


async def test_a_data_directory_is_held_by_one_alone(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(ConfigurationError, match="CARILLON_DATA_DIR"):
        await up(Settings(data_dir=tmp_path), workers=0, out=io.StringIO())
    with locked(tmp_path):
        pass


def test_a_taken_port_that_was_configured_is_refused() -> None:
    with socket.create_server((LOOPBACK, 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"CARILLON_API_PORT={port}"):
            front_door_port(Settings(api_port=port))


def test_workers_that_share_a_redis_have_ids_of_their_own(tmp_path: Path) -> None:
    here, there = (Settings(data_dir=tmp_path / name, redis_url=SecretStr("redis://host")) for name in ("a", "b"))
    assert worker_family(here) == worker_family(here) != worker_family(there)
    assert worker_family(Settings(data_dir=tmp_path)) == "worker"


def test_port_0_is_a_free_port() -> None:
    assert front_door_port(Settings(api_port=0)) > 0


@pytest.mark.parametrize("settings", [Settings(api_host="192.0.2.1"), Settings(api_host="192.0.2.1", api_port=0)])
def test_an_address_that_is_not_this_machines_is_refused_by_name(settings: Settings) -> None:
    with pytest.raises(ConfigurationError, match=r"CARILLON_API_HOST=192\.0\.2\.1 .*127\.0\.0\.1"):
        front_door_port(settings)


def test_a_free_port_is_nobody_elses_before_it_is_listened_on() -> None:
    ports = {free_port() for _ in range(200)}
    assert len(ports) == 200
    with ExitStack() as sockets:
        listener = sockets.enter_context(socket.create_server((LOOPBACK, 0), backlog=500))
        calls = [sockets.enter_context(socket.create_connection(listener.getsockname())) for _ in range(500)]
        assert not ports & {call.getsockname()[1] for call in calls}
        sockets.enter_context(socket.create_server((LOOPBACK, ports.pop())))
