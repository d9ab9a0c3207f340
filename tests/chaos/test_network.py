"""The network that the chaos cuts: it hides a host without closing anything, and nothing of it stays behind."""

from __future__ import annotations

import asyncio
import signal
import sys

import pytest

from tests.chaos.network import all_of, obstacle, remove_leftovers, running_network
from tests.support.deadlines import HANG_S

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(bool(why := obstacle()), reason=why or "")]

ECHO = """
import socket, sys
connection, _ = socket.create_server((sys.argv[1], 7000)).accept()
while data := connection.recv(100):
    connection.send(data)
"""
CRASH = """
import os, signal
from tests.chaos.network import Network
network = Network()
network.start()
network.add("host")
os.kill(os.getpid(), signal.SIGKILL)
"""


async def test_a_host_that_is_cut_off_is_silent_and_its_connections_outlive_it() -> None:
    with running_network() as network:
        address = network.add("host")
        echo = await asyncio.create_subprocess_exec(*network.inside("host"), sys.executable, "-c", ECHO, address)
        reader, writer = await connected(address)
        network.cut("host")
        writer.write(b"lost?")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.readexactly(5), 0.5)
        network.mend("host")
        assert await asyncio.wait_for(reader.readexactly(5), HANG_S) == b"lost?"
        network.hide("host")
        writer.write(b"again")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.readexactly(5), 0.5)
        network.show("host")
        assert await asyncio.wait_for(reader.readexactly(5), HANG_S) == b"again"
        writer.close()
        await echo.wait()
    assert not all_of(network.name)


async def test_what_a_crashed_run_has_left_is_removed_by_the_next() -> None:
    crashed = await asyncio.create_subprocess_exec(sys.executable, "-c", CRASH)
    assert await crashed.wait() == -signal.SIGKILL
    network = f"cari{crashed.pid}a"
    assert len(all_of(network)) == 3
    remove_leftovers()
    assert not all_of(network)


async def connected(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to the host, once it listens."""
    async with asyncio.timeout(HANG_S):
        while True:
            try:
                return await asyncio.open_connection(address, 7000)
            except OSError:
                await asyncio.sleep(0.05)
