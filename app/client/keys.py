"""The API keys of a fleet, and the projects that they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

from app.client.connection import Connection, Json
from app.speech.choices import Scope


class Keys:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def create(self, name: str, scopes: Sequence[Scope], days: float | None, project: str | None = None) -> str:
        """The token of a new key."""
        fields = {"name": name, "scopes": list(scopes), "days": days, "project": project}
        return self._connection.request("POST", "/v1/keys", json=fields)["token"]

    def all(self) -> list[Json]:
        return self._connection.request("GET", "/v1/keys")["data"]

    def rotate(self, key_id: str, overlap_hours: float) -> str:
        """The new token of a key."""
        path = f"/v1/keys/{quote(key_id, safe='')}/rotate"
        return self._connection.request("POST", path, json={"overlap_hours": overlap_hours})["token"]

    def revoke(self, key_id: str) -> None:
        self._connection.request("DELETE", f"/v1/keys/{quote(key_id, safe='')}")

    def create_project(self, name: str) -> Json:
        return self._connection.request("POST", "/v1/projects", json={"name": name})

    def limit_project(self, project: str, limits: Json) -> Json:
        """Give a project these limits, and the settings' where none is named."""
        path = f"/v1/projects/{quote(project, safe='')}/limits"
        return self._connection.request("PUT", path, json={"limits": limits})

    def projects(self) -> list[Json]:
        return self._connection.request("GET", "/v1/projects")["data"]

    def console_link(self) -> str:
        """An address that signs one browser in with the key in use here, once."""
        return self._connection.url + self._connection.request("POST", "/console/invitations")["path"]
