"""A cloned voice whose worker is killed while it speaks: the next worker fetches the adapter and goes on."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest
from pydantic import SecretStr

from app.infra.catalog import Catalog
from app.infra.datadir import load_secrets
from app.infra.embedded import LOOPBACK
from app.infra.settings import StoreSettings
from app.infra.storage import ObjectStore
from tests.chaos.listener import listening
from tests.chaos.tale import TALE
from tests.integration.random_adapters import save_random_adapter
from tests.published import publish
from tests.running_fleet import RunningFleet

pytestmark = [pytest.mark.anyio, pytest.mark.engine]

MID_SENTENCE = 30_000
"""Samples."""


async def publish_clone(fleet: RunningFleet, name: str, directory: Path) -> None:
    """A voice with an adapter of random weights, as a clone job leaves it."""
    secrets = load_secrets(fleet.data_dir)
    [port] = re.findall(r"s3 is ready on port (\d+)", fleet.printed)
    store = StoreSettings(
        endpoint_url=f"http://{LOOPBACK}:{port}",
        access_key=secrets.store_access_key,
        secret_key=secrets.store_secret_key,
    )
    objects = ObjectStore(store)
    hashes = objects.upload_directory(save_random_adapter(directory, seed=1), f"adapters/{name}/1")
    catalog = Catalog(f"sqlite+aiosqlite:///{fleet.data_dir / 'carillon.db'}", pepper=SecretStr("unused"))
    await publish(catalog, name, uri=objects.uri(f"adapters/{name}/1"), sha256=hashes)
    await catalog.aclose()
    objects.close()


async def test_a_clone_goes_on_where_its_worker_died_with_the_adapter_fetched_again(
    fleet: RunningFleet, tmp_path: Path
) -> None:
    await publish_clone(fleet, "Ada", tmp_path / "ada")
    async with listening(fleet.address, fleet.headers, voice="Ada", pace="unpaced", resumable=False) as listener:
        await listener.tell(TALE)
        await listener.spoken(MID_SENTENCE)
        os.kill(fleet.pid_of("worker-1"), signal.SIGKILL)
        heard = await listener.done()
    assert not heard.errors
    assert " ".join(segment.text for segment in heard.segments) == TALE
    assert heard.done
    assert heard.done.ledger.moves >= 1
    assert heard.done.samples == heard.end_sample
