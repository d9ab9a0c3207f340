"""Connection limits of the front door, and which connections are closed for new ones.

A connection that has not yet said what it wants is the first to go: with a thousand half-sent requests open, the next
client is still served. One that has said so, a session above all, is never closed for another. Beyond the limit a few
more connections are held, which are answered about the process's health alone. Nothing here knows HTTP.
"""

from __future__ import annotations

import resource
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

OWN_DESCRIPTORS = 160
"""For databases, the store, the registry, log files, and children that look into uploads."""

RESERVED = 32
"""Connections beyond the limit, for health checks."""

MAX_DESCRIPTORS = 65_536
MIN_CONNECTIONS = 64


@dataclass(eq=False)
class Connection:
    """One connection, as it is counted. `close` ends it at once."""

    address: str
    close: Callable[[], None]
    reserved: bool = False
    """It is one of those beyond the limit."""


class Connections:
    """Those that are open: at most `limit`, and `per_address` from one address."""

    def __init__(self, *, limit: int, per_address: int) -> None:
        self.limit = limit
        self.per_address = per_address
        self._open: set[Connection] = set()
        self._addresses: Counter[str] = Counter()
        self._undecided: dict[Connection, None] = {}
        """Those that may be closed for others, the oldest first."""

    def __len__(self) -> int:
        return len(self._open)

    def enter(self, connection: Connection) -> bool:
        """Count a new connection; False where there is no room for it, and it must be closed."""
        if self._addresses[connection.address] >= self.per_address and not self._evict(connection.address):
            return False
        if len(self._open) >= self.limit and not self._evict(None):
            if len(self._open) >= self.limit + RESERVED:
                return False
            connection.reserved = True
        self._open.add(connection)
        self._addresses[connection.address] += 1
        self._undecided[connection] = None
        return True

    def decided(self, connection: Connection) -> None:
        """It has said what it wants, and is not closed for others while it is served."""
        self._undecided.pop(connection, None)

    def undecided(self, connection: Connection) -> None:
        """It has been served, and waits for another request."""
        if connection in self._open:
            self._undecided[connection] = None

    def leave(self, connection: Connection) -> None:
        if connection in self._open:
            self._open.discard(connection)
            self._undecided.pop(connection, None)
            self._addresses[connection.address] -= 1
            if not self._addresses[connection.address]:
                del self._addresses[connection.address]

    def _evict(self, address: str | None) -> bool:
        """Close the connection that has waited longest, of `address` if one is given. False where none may be."""
        for connection in self._undecided:
            if address is None or connection.address == address:
                self.leave(connection)
                connection.close()
                return True
        return False


def raise_descriptor_limit() -> None:
    """Let this process open as many files as the system allows it to."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and wanted > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def connection_limit() -> int:
    """For how many connections there are descriptors: a session takes a second one, to its worker."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    descriptors = MAX_DESCRIPTORS if soft == resource.RLIM_INFINITY else soft
    return max(MIN_CONNECTIONS, (descriptors - OWN_DESCRIPTORS) // 2 - RESERVED)
