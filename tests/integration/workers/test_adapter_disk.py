"""The adapter cache between a real object store, which goes away and returns, and a real disk, which fills up."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

import pytest
from pydantic import SecretStr

from app.errors import AdapterUnavailable
from app.local import embedded
from app.platform.object_store import ObjectStore
from app.platform.settings import StoreSettings
from app.speech.voices import AdapterVersion
from tests.support.deadlines import HANG_S
from tests.support.fakes import FakeEngine
from workers.adapters import AdapterCache, Fetch

pytestmark = pytest.mark.anyio

WEIGHTS_BYTES = 600_000
DISK = "size=1m"


def publish(store: ObjectStore, directory: Path, voice_id: str, lora_id: int) -> AdapterVersion:
    directory = directory / voice_id
    directory.mkdir()
    (directory / "adapter_config.json").write_text(json.dumps({"r": 16, "target_modules": ["q_proj"]}))
    (directory / "adapter_model.safetensors").write_bytes(os.urandom(WEIGHTS_BYTES))
    prefix = f"adapters/{voice_id}/1"
    hashes = store.upload_directory(directory, prefix)
    return AdapterVersion(voice_id=voice_id, version=1, lora_id=lora_id, uri=store.uri(prefix), sha256=hashes, rank=16)


def cache(fetch: Fetch, directory: Path) -> AdapterCache:
    return AdapterCache(
        FakeEngine(),
        fetch,
        directory,
        max_resident=8,
        max_rank=16,
        patience_s=60,
        clock=monotonic,
        retry_interval_s=0.1,
    )


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MB, which holds one adapter."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", DISK, "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mounting, capture_output=True, check=False).returncode:
        pytest.skip("a small disk can only be mounted by root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


async def test_a_full_disk_evicts_what_is_not_used_and_else_fails_the_newcomer_alone(
    object_store: ObjectStore, small_disk: Path, tmp_path: Path
) -> None:
    adapters = cache(object_store.fetch, small_disk)
    a, b, c = (publish(object_store, tmp_path, name, number) for number, name in enumerate("abc", start=1))
    async with adapters.use(a):
        pass
    async with adapters.use(b) as adapter:
        assert adapters.ready == {"b@1"}
        with pytest.raises(AdapterUnavailable, match=r"disk .* is full"):
            async with adapters.use(c):
                pass
        assert [path.name for path in small_disk.iterdir()] == ["b@1"]
        assert {path.name for path in adapter.path.iterdir()} == set(b.sha256)
    async with adapters.use(c):
        assert [path.name for path in small_disk.iterdir()] == ["c@1"]


async def test_a_store_that_comes_back_serves_the_callers_that_waited(tmp_path: Path) -> None:
    port = embedded.free_port()
    settings = StoreSettings(
        endpoint_url=f"http://{embedded.LOOPBACK}:{port}",
        access_key=SecretStr("access"),
        secret_key=SecretStr("secret"),
    )
    store = ObjectStore(settings, timeout_s=5, attempts=1)
    called = asyncio.Event()
    loop = asyncio.get_running_loop()

    def fetch(uri: str, name: str, path: Path) -> None:
        try:
            store.fetch(uri, name, path)
        finally:
            loop.call_soon_threadsafe(called.set)

    adapters = cache(fetch, tmp_path / "cache")
    with object_server(tmp_path, port, settings):
        store.ensure_bucket()
        version = publish(store, tmp_path, "ada", 1)

    async def speak() -> None:
        async with adapters.use(version) as adapter:
            assert (adapter.path / "adapter_model.safetensors").stat().st_size == WEIGHTS_BYTES

    speaking = asyncio.create_task(speak())
    await called.wait()
    assert not adapters.ready
    with object_server(tmp_path, port, settings):
        await speaking
    store.close()


@contextmanager
def object_server(tmp_path: Path, port: int, settings: StoreSettings) -> Iterator[None]:
    program = embedded.object_store(tmp_path / "s3", port=port, store=settings)
    server = subprocess.Popen(
        program.command, env={**os.environ, **program.environment}, stderr=subprocess.PIPE, text=True
    )
    assert server.stderr
    for line in server.stderr:
        if "Starting s3 server" in line:
            break
    try:
        yield
    finally:
        server.kill()
        server.communicate(timeout=HANG_S)
