"""The API keys of a fleet."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

from app.client.connection import Connection, Json
from app.speech.choices import Scope


class Keys:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def create(self, name: str, scopes: Sequence[Scope], days: float | None) -> str:
        """The token of a new key."""
        fields = {"name": name, "scopes": list(scopes), "days": days}
        return self._connection.request("POST", "/v1/keys", json=fields)["token"]

    def all(self) -> list[Json]:
        return self._connection.request("GET", "/v1/keys")["data"]

    def revoke(self, key_id: str) -> None:
        self._connection.request("DELETE", f"/v1/keys/{quote(key_id, safe='')}")

    def console_link(self) -> str:
        """An address that signs one browser in with the key in use here, once."""
        return self._connection.url + self._connection.request("POST", "/console/invitations")["path"]
