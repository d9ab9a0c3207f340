"""Several front doors on one port: processes of `carillon api --shared-port`, none of which knows of the others.

The kernel gives every new connection to one of them (SO_REUSEPORT). What they share they share with front doors on
other machines too: the database, Redis and the store. One that dies is started again; the others serve on meanwhile.
A process that stops refuses what its own queue of new connections still holds: callers try again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from app.errors import ConfigurationError
from app.platform import reaper

RESTART_S = 1.0
YOUNG_S = 5.0
"""A front door that ends sooner would do so the next time too: then all end, with its status."""

COMMAND = (sys.executable, "-P", "-m", "app.cli.main", "api", "--shared-port")

log = logging.getLogger(__name__)


def shared_socket(host: str, port: int) -> socket.socket:
    """A socket bound to an address that others of this user may be bound to as well; 0 is a free port.

    Raises OSError.
    """
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind((host, port))
    except OSError:
        bound.close()
        raise
    bound.set_inheritable(True)
    return bound


@contextmanager
def reserved_port(host: str, port: int) -> Iterator[int]:
    """The port, free for sockets that share it and for no others while the context lasts.

    Raises ConfigurationError where another process listens there: the kernel would give it a share of what comes.
    """
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as alone:
            alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            alone.bind((host, port))
        holding = shared_socket(host, port)
    except OSError as error:
        raise ConfigurationError(
            f"port {port} of {host} cannot be had: {error.strerror}; set CARILLON_API_PORT to another"
        ) from None
    with holding:
        yield holding.getsockname()[1]


async def serve(host: str, port: int, *, processes: int, command: Sequence[str] = COMMAND) -> int:
    """Run so many front doors until SIGTERM or SIGINT, which they get too; returns the exit status."""
    with reserved_port(host, port) as shared, _told_to_stop() as stop:
        environment = os.environ | {"CARILLON_API_PORT": str(shared)}
        keepers = [asyncio.create_task(_keep(command, environment, stop)) for _ in range(processes)]
        statuses = await asyncio.gather(*keepers)
    return max(statuses)


@contextmanager
def _told_to_stop() -> Iterator[asyncio.Event]:
    """Set at SIGTERM and SIGINT while the context lasts."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        yield stop
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


async def _keep(command: Sequence[str], environment: dict[str, str], stop: asyncio.Event) -> int:
    """Runs one front door until `stop`, restarting it; returns its last status, 0 after a stop."""
    clock = asyncio.get_running_loop().time
    while not stop.is_set():
        begun_s = clock()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, reaper.__file__, "exec", str(os.getpid()), *command),
            env=environment,
            start_new_session=True,  # a terminal's Ctrl-C reaches the parent alone, which passes it on once
        )
        ending, stopping = asyncio.create_task(process.wait()), asyncio.create_task(stop.wait())
        await asyncio.wait((ending, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not ending.done():
            process.send_signal(signal.SIGTERM)
            await ending
            return 0
        log.warning("front door ended", extra={"pid": process.pid, "status": process.returncode})
        if clock() - begun_s < YOUNG_S:
            stop.set()
            return abs(process.returncode or 1)
        await asyncio.sleep(RESTART_S)
    return 0
