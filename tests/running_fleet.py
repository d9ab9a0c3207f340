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

from websockets.asyncio.client import ClientConnection, connect

from app.infra.embedded import free_port
from tests.deadlines import LONG_HANG_S


@dataclass
class RunningFleet:
    """What `carillon up` printed, and where it keeps its files."""

    process: subprocess.Popen[str]
    data_dir: Path
    environment: Mapping[str, str]
    printed: str

    @property
    def address(self) -> str:
        return re.findall(r"front door +(\S+)", self.printed)[0]

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
        **configured,
    }
    command = [sys.executable, "-m", "app.cli", "up"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        if "Ctrl-C" in line:
            break
    printed = "".join(lines)
    assert process.poll() is None, printed
    yield RunningFleet(process, data_dir, environment, printed)
    process.terminate()
    process.communicate(timeout=LONG_HANG_S)
