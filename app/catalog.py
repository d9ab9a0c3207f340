"""The catalogue: projects, keys, voices and jobs, in SQL. It is the truth for what must not be lost.

It opens the stores of one database, and knows nothing of what they keep.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Self

from pydantic import SecretStr

from app.platform.api_key_store import ApiKeyStore
from app.platform.audit import AuditLog
from app.platform.database import Database, utc_now
from app.platform.projects import EVERYONE, ProjectStore, Tenant

if TYPE_CHECKING:
    from app.narration.steps import StepStore
    from app.narration.store import NarrationStore
    from app.platform.idempotency import IdempotencyStore
    from app.platform.usage import UsageStore
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

    def __init__(
        self,
        database: str | Database,
        *,
        pepper: SecretStr,
        now: Callable[[], datetime] = utc_now,
        tenant: Tenant = EVERYONE,
    ) -> None:
        self._now = now
        self._pepper = pepper
        self._tenant = tenant
        self.database = database if isinstance(database, Database) else Database(database)
        self.keys = ApiKeyStore(self.database, pepper=pepper, now=now, tenant=tenant)
        self.projects = ProjectStore(self.database, now=now)
        self.audit = AuditLog(self.database, now=now, tenant=tenant)

    def seen_by(self, tenant: Tenant) -> Self:
        """The same catalogue, as far as a tenant has it. It is not closed by itself."""
        return type(self)(self.database, pepper=self._pepper, now=self._now, tenant=tenant)

    # Each is imported where it is asked for: a command about keys waits for none of them.

    @cached_property
    def idempotency(self) -> IdempotencyStore:
        from app.platform.idempotency import IdempotencyStore

        return IdempotencyStore(self.database, now=self._now)

    @cached_property
    def usage(self) -> UsageStore:
        from app.platform.usage import UsageStore

        return UsageStore(self.database, now=self._now, tenant=self._tenant)

    @cached_property
    def voices(self) -> VoiceStore:
        from app.voices.store import VoiceStore

        return VoiceStore(self.database, now=self._now, tenant=self._tenant)

    @cached_property
    def jobs(self) -> JobStore:
        from app.voices.jobs import JobStore

        return JobStore(self.database, now=self._now, tenant=self._tenant)

    @cached_property
    def narrations(self) -> NarrationStore:
        from app.narration.store import NarrationStore

        return NarrationStore(self.database, now=self._now, tenant=self._tenant)

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
