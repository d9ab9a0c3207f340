"""Several processes on one port, with small programs in place of front doors."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path

import pytest

from app.errors import ConfigurationError
from app.local.front_doors import reserved_port, serve, shared_socket
from tests.support.deadlines import HANG_S

pytestmark = pytest.mark.anyio

LOOPBACK = "127.0.0.1"
PROGRAM = """
import os, signal, sys
from pathlib import Path
directory = Path(sys.argv[1])
(directory / str(os.getpid())).write_text(os.environ["CARILLON_API_PORT"])
signal.sigwait([signal.SIGTERM])
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    signs = tmp_path / "signs"
    signs.mkdir()
    return signs


def command(directory: Path) -> tuple[str, ...]:
    return sys.executable, "-c", PROGRAM, str(directory)


async def signs_of(directory: Path, count: int) -> set[str]:
    """What so many processes have written: the port."""
    async with asyncio.timeout(HANG_S):
        while len(found := [text for path in directory.iterdir() if (text := path.read_text())]) < count:
            await asyncio.sleep(0.02)
    return set(found)


async def test_all_processes_get_the_same_port_and_end_with_the_parent(directory: Path) -> None:
    serving = asyncio.create_task(serve(LOOPBACK, 0, processes=3, command=command(directory)))
    (port,) = await signs_of(directory, 3)
    assert int(port) > 0
    os.kill(os.getpid(), signal.SIGTERM)
    async with asyncio.timeout(HANG_S):
        assert await serving == 0


async def test_where_one_ends_as_soon_as_it_has_begun_all_end_with_its_status(directory: Path) -> None:
    failing = (sys.executable, "-c", f"import sys; sys.exit(3 if {str(directory)!r} else 0)")
    async with asyncio.timeout(HANG_S):
        assert await serve(LOOPBACK, 0, processes=2, command=failing) == 3


def test_those_who_share_a_port_both_listen_on_it() -> None:
    with reserved_port(LOOPBACK, 0) as port, shared_socket(LOOPBACK, port) as one, shared_socket(LOOPBACK, port) as two:
        one.listen()
        two.listen()
        with socket.create_connection((LOOPBACK, port)):
            pass
        one.close()
        with socket.create_connection((LOOPBACK, port)):
            pass


def test_a_port_where_others_listen_is_refused_even_if_they_would_share_it() -> None:
    with shared_socket(LOOPBACK, 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"port {port} of {LOOPBACK}"), reserved_port(LOOPBACK, port):
            pass
