"""The fleet that real clients talk to, as they see it. Nothing of Carillon is imported: their environment lacks it.

`CARILLON_URL` and `CARILLON_KEY` name one that runs already; else one is started from the repository's environment.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import subprocess
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv/bin/python"
HANG_S = 300.0
"""How long a test waits for what must come. Only a hang fails by it."""
STORY = "This is a story that goes on for a long while. " * 80
"""Minutes of speech, which nobody hears to its end; as long as a request of OpenAI's may be."""


@dataclass(frozen=True)
class Fleet:
    """A front door, a key for it, and what its worker says of itself."""

    url: str
    key: str
    voice: str = "wren"

    @property
    def ws_url(self) -> str:
        return self.url.replace("http", "ws", 1)

    @asynccontextmanager
    async def interrupted(self) -> AsyncIterator[None]:
        """Within, the one session is interrupted: it ends before all of it was spoken, and the engine is idle."""
        before = await asyncio.to_thread(self._left)
        yield
        async with asyncio.timeout(HANG_S):
            while await asyncio.to_thread(self._left) == before or await asyncio.to_thread(self._in_flight):
                await asyncio.sleep(0.05)

    def _left(self) -> float:
        """Sessions whose client left while they were spoken."""
        counts = re.findall(r'^carillon_sessions_total{.*outcome="gone"} (\S+)', self._get("/metrics"), re.MULTILINE)
        return sum(map(float, counts))

    def _in_flight(self) -> int:
        return sum(worker["inflight"] for worker in json.loads(self._get("/v1/fleet"))["workers"])

    def _get(self, path: str) -> str:
        request = urllib.request.Request(self.url + path, headers={"Authorization": f"Bearer {self.key}"})
        with urllib.request.urlopen(request, timeout=HANG_S) as answer:
            return answer.read().decode()


@contextmanager
def running(directory: Path) -> Iterator[Fleet]:
    """One with a worker that speaks with the stand-in."""
    if "CARILLON_URL" in os.environ:
        yield Fleet(os.environ["CARILLON_URL"], os.environ["CARILLON_KEY"])
        return
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("CARILLON_", "VIRTUAL_ENV"))},
        "CARILLON_DATA_DIR": str(directory),
        "CARILLON_API_PORT": str(free_port()),
        "CARILLON_CAPACITY": "4",
        "CARILLON_ENGINE__STARTUP_TIMEOUT_S": "1800",
        "PYTHONPATH": str(ROOT),
    }
    command = [PYTHON, "-m", "app.cli.main", "up"]
    process = subprocess.Popen(
        command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        printed = _until_ready(process)
        [url] = re.findall(r"front door +(http\S+)", printed)
        [key] = re.findall(r"key +(cari_\S+)", printed)
        yield Fleet(url, key)
    finally:
        process.terminate()
        process.communicate(timeout=HANG_S)


def _until_ready(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        if "Ctrl-C" in line:
            return "".join(lines)
    raise AssertionError("".join(lines))


def free_port() -> int:
    """As `app.local.embedded.free_port`: nobody else is given it while the fleet starts."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        server.accept()[0].close()
        return server.getsockname()[1]
