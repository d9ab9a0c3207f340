"""The jobs of a fleet that make voices: clones of a speaker, and built-in voices that are polished."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from app.client.connection import Connection, Json


class Clones:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def start(self, voice_id: str, overrides: Mapping[str, Any]) -> Json:
        """Raises Conflict where a job of this voice is under way."""
        return self._connection.request("POST", "/v1/clones", json={"voice": voice_id, "overrides": overrides})

    def start_polish(self, name: str, overrides: Mapping[str, Any], *, model: str | None = None) -> Json:
        """Polish a built-in voice. Raises Conflict where that is under way."""
        fields = {"overrides": overrides} | ({"model": model} if model else {})
        return self._connection.request("POST", f"/v1/voices/{quote(name, safe='')}/polish", json=fields)

    def all(self, *, limit: int) -> list[Json]:
        """The newest jobs."""
        return self._connection.request("GET", "/v1/clones", params={"limit": limit})["data"]

    def active(self, voice_id: str) -> Json | None:
        """The job of a voice that is not over, if there is one."""
        jobs = self._connection.request("GET", "/v1/clones", params={"voice": voice_id})["data"]
        return next((job for job in jobs if not job["over"]), None)

    def follow(self, job_id: str) -> Iterator[Json]:
        """The job whenever it changes, until it is over; see `Connection.follow`."""
        return self._connection.follow(f"/v1/clones/{job_id}/events")
