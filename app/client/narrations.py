"""The narrations of a fleet: handed in, followed, and fetched when they are done."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from app.client.connection import Connection, Json
from app.client.download import download
from app.errors import ConfigurationError


class Narrations:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def create(self, fields: Json) -> Json:
        """Hand a text in."""
        return self._connection.request("POST", "/v1/narrations", json=fields)

    def create_from_file(self, book: Path, fields: Json, cover: Path | None) -> Json:
        """Hand a book in."""
        with ExitStack() as stack:
            parts: list[Any] = [
                ("narration", (None, json.dumps(fields))),
                ("file", (book.name, stack.enter_context(_opened(book)))),
            ]
            if cover is not None:
                parts.append(("cover", (cover.name, stack.enter_context(_opened(cover)))))
            return self._connection.request("POST", "/v1/narrations", files=parts)

    def all(self, *, limit: int) -> list[Json]:
        """The newest narrations."""
        return self._connection.request("GET", "/v1/narrations", params={"limit": limit})["data"]

    def get(self, narration_id: str) -> Json:
        return self._connection.request("GET", f"/v1/narrations/{narration_id}")

    def resume(self, narration_id: str, changes: Json) -> Json:
        return self._connection.request("POST", f"/v1/narrations/{narration_id}/resume", json=changes)

    def cancel(self, narration_id: str) -> None:
        self._connection.request("POST", f"/v1/narrations/{narration_id}/cancel")

    def delete(self, narration_id: str) -> None:
        self._connection.request("DELETE", f"/v1/narrations/{narration_id}")

    def follow(self, narration: Json) -> Iterator[Json]:
        """The narration whenever it changes, until it is over; see `Connection.follow`."""
        for news in self._connection.follow(f"/v1/narrations/{narration['id']}/events"):
            narration = narration | news  # findings come only when they are new
            yield narration

    def flagged_segments(self, narration_id: str) -> list[Json]:
        """The segments that failed a check in every try."""
        path = f"/v1/narrations/{narration_id}/segments"
        return self._connection.request("GET", path, params={"flagged": True})["data"]

    def captions(self, narration_id: str, format: str, by: str) -> bytes:
        path = f"/v1/narrations/{narration_id}/captions.{format}"
        return self._connection.send("GET", path, params={"by": by}).content

    def download(self, narration_id: str, path: Path, progress: Callable[[int, int], None]) -> None:
        """Fetch the finished file; see `app.client.download`."""
        download(self._connection, f"/v1/narrations/{narration_id}/audio", path, progress)


def _opened(path: Path) -> Any:
    """Raises ConfigurationError."""
    try:
        return path.open("rb")
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from None
