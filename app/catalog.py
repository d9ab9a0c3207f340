"""The catalogue: keys, voices and jobs, in SQL. It is the truth for what must not be lost.

It opens the stores of one database, and knows nothing of what they keep.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING

from pydantic import SecretStr

from app.platform.api_key_store import ApiKeyStore
from app.platform.database import Database, utc_now

if TYPE_CHECKING:
    from app.narration.steps import StepStore
    from app.narration.store import NarrationStore
    from app.voices.jobs import JobStore
    from app.voices.pronunciations import PronunciationStore
    from app.voices.store import VoiceStore


class Catalog:
    """One process's way to the catalogue. `now` gives aware datetimes.

    Every method raises StoreUnavailable when the database does not answer or refuses.

    Example:
        catalog = Catalog(settings.database, pepper=settings.key_pepper)
        await catalog.migrate()
        key = await catalog.keys.create("laptop", {Scope.SPEAK})
        await catalog.keys.authenticate(key.token)
    """

    def __init__(self, url: str, *, pepper: SecretStr, now: Callable[[], datetime] = utc_now) -> None:
        self._now = now
        self.database = Database(url)
        self.keys = ApiKeyStore(self.database, pepper=pepper, now=now)

    # Each is imported by whoever asks for it: a command about keys waits for none of them.

    @cached_property
    def voices(self) -> VoiceStore:
        from app.voices.store import VoiceStore

        return VoiceStore(self.database, now=self._now)

    @cached_property
    def jobs(self) -> JobStore:
        from app.voices.jobs import JobStore

        return JobStore(self.database, now=self._now)

    @cached_property
    def narrations(self) -> NarrationStore:
        from app.narration.store import NarrationStore

        return NarrationStore(self.database, now=self._now)

    @cached_property
    def steps(self) -> StepStore:
        from app.narration.steps import StepStore

        return StepStore(self.database, now=self._now)

    @cached_property
    def pronunciations(self) -> PronunciationStore:
        from app.voices.pronunciations import PronunciationStore

        return PronunciationStore(self.database, now=self._now)

    async def aclose(self) -> None:
        await self.database.aclose()

    async def migrate(self) -> None:
        """Bring the tables to this version's form. Safe to run from several processes at once."""
        await self.database.migrate()

    async def revision(self) -> tuple[str | None, str]:
        """The tables' revision (None: there are no tables) and the one this version needs."""
        return await self.database.revision()
