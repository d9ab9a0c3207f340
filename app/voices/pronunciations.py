"""Stored pronunciation dictionaries: a key's, for all that it speaks, and a voice's, for all callers.

The voice's takes precedence over the key's, and a narration's own replacements over both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from time import monotonic

from sqlalchemy import delete, insert, select

from app.platform.database import Database
from app.platform.lanes import CALLER
from app.platform.tables import PronunciationRow
from app.speech.text.respelling import merged
from app.speech.voices import Voice

MAX_AGE_S = 1.0
"""How long a front door may go on with what was said before a change at another."""

MAX_REMEMBERED = 10_000


def of_key(key_id: str) -> str:
    """The owner of a key's dictionary; where authentication is off, all callers share one."""
    return f"key:{key_id}"


def of_voice(voice: Voice) -> str:
    """The owner that a voice is: a clone by its id, a built-in voice by its model and name."""
    return f"voice:{voice.id}" if voice.adapter else f"voice:{voice.model}/{voice.name}"


class PronunciationStore:
    """Every method raises StoreUnavailable when the database does not answer or refuses."""

    def __init__(
        self, database: Database, *, now: Callable[[], datetime], clock: Callable[[], float] = monotonic
    ) -> None:
        self._database = database
        self._now = now
        self._clock = clock
        self._read: dict[str, tuple[float, dict[str, str]]] = {}

    async def get(self, owner: str) -> dict[str, str]:
        """The words of one owner; none are an empty dictionary."""
        async with self._database.reading() as connection:
            words = await connection.scalar(select(PronunciationRow.words).where(PronunciationRow.owner == owner))
        return words or {}

    async def put(self, owner: str, words: Mapping[str, str]) -> None:
        """Keep these words, in place of those before."""
        async with self._database.writing() as connection:
            await connection.execute(delete(PronunciationRow).where(PronunciationRow.owner == owner))
            if words:
                row = {"owner": owner, "words": dict(words), "changed_at": self._now()}
                await connection.execute(insert(PronunciationRow).values(**row))
        self._read.pop(owner, None)

    async def spoken_with(self, voice: Voice) -> dict[str, str]:
        """The words of the current caller in this voice, at most a second old."""
        return merged(await self._recent(of_key(CALLER.get())), await self._recent(of_voice(voice)))

    async def _recent(self, owner: str) -> dict[str, str]:
        read_at, words = self._read.get(owner, (float("-inf"), {}))
        if self._clock() - read_at < MAX_AGE_S:
            return words
        if len(self._read) >= MAX_REMEMBERED:
            self._read.clear()
        words = await self.get(owner)
        self._read[owner] = (self._clock(), words)
        return words
