"""`carillon up` as a process, for tests that need all of it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from websockets.asyncio.client import ClientConnection, connect

from app.catalog import Catalog
from app.local.embedded import LOOPBACK, free_port
from app.platform.data_dir import load_secrets
from app.platform.object_store import ObjectStore
from app.platform.settings import StoreSettings
from tests.support.deadlines import LONG_HANG_S
from tests.support.published import publish

QUICK_RECIPE = {
    "CARILLON_CLONE__PREPARE__MIN_USABLE_S": "20",
    "CARILLON_CLONE__PREPARE__MIN_CLIPS": "5",
    "CARILLON_CLONE__TRAIN__BATCH_CLIPS": "2",
    "CARILLON_CLONE__GATE__PROMPTS": "4",
    "CARILLON_CLONE__GATE__MAX_HEAD_SILENCE_P50_MS": "60000",
    "CARILLON_CLONE__GATE__MAX_HEAD_SILENCE_P95_MS": "60000",
    "CARILLON_CLONE__GATE__MIN_ENDED_SHARE": "0",
    "CARILLON_CLONE__GATE__DURATION_RATIO": "[0, 100]",
    "CARILLON_CLONE__GATE__MAX_SILENCE_RUN_S": "60",
    "CARILLON_CLONE__GATE__REQUIRE_CLOSENESS": "false",
    "CARILLON_CLONE__GATE__MAX_WORD_ERROR_RATE": "1",
}
"""Few recordings are enough, and any voice that comes of them passes the gate."""


@dataclass
class RunningFleet:
    """What `carillon up` printed, and where it keeps its files."""

    process: subprocess.Popen[str]
    data_dir: Path
    environment: Mapping[str, str]
    printed: str

    @property
    def address(self) -> str:
        return re.findall(r"front door +(http\S+)", self.printed)[0]

    @property
    def key(self) -> str:
        return re.findall(r"key +(cari_\S+)", self.printed)[0]

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    def running(self) -> dict[str, Any]:
        return json.loads((self.data_dir / "run.json").read_text())

    def pid_of(self, program: str) -> int:
        return self.running()["programs"][program]["pid"]

    async def publish(self, name: str, adapter: Path) -> None:
        """Have the voice `name` speak with an adapter, as a clone job leaves it; with one that is gone if it is not
        there."""
        store, prefix = ObjectStore(self._store()), f"adapters/{name}/1"
        hashes = {"adapter_config.json": "0" * 64}
        if adapter.exists():
            hashes = store.upload_directory(adapter, prefix)
        catalog = Catalog(f"sqlite+aiosqlite:///{self.data_dir / 'carillon.db'}", pepper=SecretStr("unused"))
        await publish(catalog, name, uri=store.uri(prefix), sha256=hashes)
        await catalog.aclose()
        store.close()

    def _store(self) -> StoreSettings:
        secrets = load_secrets(self.data_dir)
        [port] = re.findall(r"s3 is ready on port (\d+)", self.printed)
        return StoreSettings(
            endpoint_url=f"http://{LOOPBACK}:{port}",
            access_key=secrets.store_access_key,
            secret_key=secrets.store_secret_key,
        )

    @asynccontextmanager
    async def socket(self) -> AsyncIterator[ClientConnection]:
        url = f"{self.address.replace('http', 'ws')}/v1/sessions"
        async with connect(url, additional_headers=self.headers, max_size=None) as socket:
            yield socket


@contextmanager
def running_fleet(data_dir: Path, configured: Mapping[str, str]) -> Iterator[RunningFleet]:
    """A fleet with one worker and these variables besides, ready to speak; it is stopped at the end."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("CARILLON_")},
        "CARILLON_DATA_DIR": str(data_dir),
        "CARILLON_API_PORT": str(free_port()),
        "CARILLON_CAPACITY": "4",  # whatever pace a busy machine has
        **configured,
    }
    command = [sys.executable, "-m", "app.cli.main", "up"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        if "Ctrl-C" in line:
            break
    printed = "".join(lines)
    assert process.poll() is None, printed
    try:
        yield RunningFleet(process, data_dir, environment, printed)
    finally:
        process.terminate()
        process.communicate(timeout=LONG_HANG_S)
