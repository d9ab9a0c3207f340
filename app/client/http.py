"""The HTTP interface of a front door, its calls grouped by noun: what our own commands and benches use.

It knows the paths and forms of the interface; what a command does with them, and in which order, it does not.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Self

import httpx

from app.client.clones import Clones
from app.client.connection import Connection, Json
from app.client.fleet import Fleet
from app.client.keys import Keys
from app.client.narrations import Narrations
from app.client.pronunciations import Pronunciations
from app.client.voices import Voices
from app.errors import CarillonError

PROBE_TIMEOUT_S = 5.0


class ApiClient:
    """The front door at `url` (http://…). Every call raises the front door's errors, WorkerLost without one."""

    def __init__(
        self,
        url: str,
        key: str | None,
        *,
        transport: httpx.BaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._connection = connection = Connection(url, key, transport=transport, clock=clock, sleep=sleep)
        self.voices = Voices(connection)
        self.clones = Clones(connection)
        self.narrations = Narrations(connection)
        self.fleet = Fleet(connection)
        self.keys = Keys(connection)
        self.pronunciations = Pronunciations(connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def usage(self, **query: str) -> Json:
        """`GET /v1/usage`."""
        return self._connection.request("GET", "/v1/usage", params=query)

    def metrics(self) -> str:
        """`GET /metrics`, in Prometheus' text format; this needs no key."""
        return self._connection.send("GET", "/metrics").text

    def is_reachable(self) -> bool:
        """Whether a front door answers; this needs no key."""
        try:
            return self._connection.send("GET", "/healthz", timeout=PROBE_TIMEOUT_S).is_success
        except CarillonError:
            return False
