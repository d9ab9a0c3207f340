"""How words are said: the dictionary of this key, and of a voice."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from app.client.connection import Connection


class Pronunciations:
    """`voice` names the one whose dictionary is meant; None: this key's."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, voice: str | None) -> dict[str, str]:
        return self._connection.request("GET", _path(voice))["words"]

    def put(self, voice: str | None, words: Mapping[str, str]) -> dict[str, str]:
        """All the words there shall be."""
        return self._connection.request("PUT", _path(voice), json={"words": dict(words)})["words"]


def _path(voice: str | None) -> str:
    return f"/v1/voices/{quote(voice, safe='')}/pronunciations" if voice else "/v1/pronunciations"
