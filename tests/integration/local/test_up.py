"""`carillon up` as a user runs it, without a GPU worker: real stores, tasks and front door in real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.processes import ended, until

pytestmark = pytest.mark.anyio

Start = Callable[[], subprocess.Popen[str]]


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A directory as people name them."""
    return tmp_path / "my data"


@pytest.fixture
def start(data_dir: Path) -> Iterator[Start]:
    """Start `carillon up --workers 0`; what still runs at the end is killed."""
    started: list[subprocess.Popen[str]] = []
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CARILLON_")}
    environment |= {"CARILLON_DATA_DIR": str(data_dir), "CARILLON_API_PORT": "0", "http_proxy": "http://127.0.0.1:1"}

    def start() -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "app.cli.main", "up", "--workers", "0"]
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()
        if process.stdout:
            process.stdout.close()


def read_until(process: subprocess.Popen[str], words: str) -> str:
    """What the process says up to the line with `words`."""
    assert process.stdout
    said = ""
    for line in process.stdout:
        said += line
        if words in line:
            return said
    raise AssertionError(f"it ended without saying {words!r}:\n{said}")


def running(data_dir: Path) -> dict[str, dict[str, object]]:
    return json.loads((data_dir / "run.json").read_text())["programs"]


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(member for child in children for member in family(int(child)))]


@pytest.mark.slow
async def test_what_is_killed_comes_back_and_ctrl_c_stops_the_rest_in_order(start: Start, data_dir: Path) -> None:
    process = start()
    welcome = read_until(process, "Ctrl-C stops everything")
    address = json.loads((data_dir / "run.json").read_text())["api"]
    assert f"curl {address}/v1/audio/speech" in welcome
    assert "Authorization: Bearer cari_" in welcome

    refused = start()
    assert "in use by another `carillon up`" in refused.communicate()[0]
    assert refused.returncode == 1

    for name in ("valkey", "api"):
        pid = running(data_dir)[name]["pid"]
        assert isinstance(pid, int)
        os.kill(pid, signal.SIGKILL)
        await until(lambda name=name: running(data_dir)[name]["incarnation"] == 2)
        await until(lambda name=name: running(data_dir)[name]["state"] == "ready")
    assert httpx.get(f"{address}/healthz", trust_env=False).status_code == 200

    process.send_signal(signal.SIGINT)
    said, _ = process.communicate()
    order = [line.rpartition(" ")[2] for line in said.splitlines() if line.startswith("carillon: stopping")]
    assert order == ["api", "tasks", "s3", "valkey"]
    assert process.returncode == 0
    assert not (data_dir / "run.json").exists()


async def test_when_it_is_killed_itself_nothing_stays_behind(start: Start, data_dir: Path) -> None:
    process = start()
    read_until(process, "Ctrl-C stops everything")
    members = family(process.pid)
    programs = [program["pid"] for program in running(data_dir).values()]
    assert set(programs) < set(members)
    process.kill()
    for pid in members:
        await ended(pid)
