"""The workers of a fleet."""

from __future__ import annotations

from urllib.parse import quote

from app.client.connection import Connection, Json

CALL_TIMEOUT_S = 10.0


class Fleet:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def workers(self) -> dict[str, Json]:
        """The workers by id."""
        answer = self._connection.request("GET", "/v1/fleet", timeout=CALL_TIMEOUT_S)
        return {worker["id"]: worker for worker in answer["workers"]}

    def drain(self, worker_id: str, deadline_s: float | None) -> Json:
        """Order a worker to drain. Raises NotFound with the workers there are."""
        path = f"/v1/fleet/workers/{quote(worker_id, safe='')}/drain"
        return self._connection.request("POST", path, json={"deadline_s": deadline_s}, timeout=CALL_TIMEOUT_S)
