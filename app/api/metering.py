"""A caller's limits and usage: requests, sessions, storage.

Every session is opened through `CallerMetering.session`, whichever dialect asks: by `Services.session_router`. A limit
that is not set costs nothing.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from app.api.metrics import Metrics, ProjectUse
from app.api.usage_recorder import UsageMeter, UsageRecorder
from app.errors import QuotaExceeded
from app.platform.api_keys import ApiKey
from app.platform.database import utc_now
from app.platform.limit_values import Limits
from app.platform.projects import Tenant
from app.platform.rate_limits import RateLimiter
from app.platform.session_counts import SessionCounts
from app.platform.settings import LimitSettings, PriceSettings
from app.platform.tables import DEFAULT_PROJECT
from app.platform.usage import UsageRecord, UsageStore
from app.realtime.session import Meter, Used
from app.speech.voices import Voice

BUDGET_AGE_S = 5.0
"""How old the sum may be that a budget is compared with."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Metering:
    """The counters of one front door. `places` says how many sessions the fleet has room for in all.

    `patience_s` is how long a session waits for another of its project to end.
    """

    settings: LimitSettings
    prices: PriceSettings
    rates: RateLimiter
    counts: SessionCounts
    recorder: UsageRecorder
    usage: UsageStore
    metrics: Metrics
    places: Callable[[], int]
    patience_s: float
    spent: dict[str, tuple[float, float]] = field(default_factory=dict)
    """By project: what it has spent this month, and when that was summed."""

    def of(self, caller: ApiKey | None) -> CallerMetering:
        return CallerMetering(self, caller)


class CallerMetering:
    """Of one caller; None where authentication is off, and nothing is limited."""

    def __init__(self, metering: Metering, caller: ApiKey | None) -> None:
        self._metering = metering
        self.project_id = caller.project_id if caller else DEFAULT_PROJECT
        self.key_id = caller.id if caller else None
        settings = metering.settings
        self.project = caller.project_limits.over(settings.project) if caller else Limits()
        self.key = caller.limits.over(settings.key) if caller else Limits()

    async def request(self) -> None:
        """Count a request. Raises RateLimited, Overloaded."""
        project, key = self.project.requests_per_minute, self.key.requests_per_minute
        await self._metering.rates.count("requests", 1, self._owners(project, key))

    async def characters(self, count: int) -> None:
        """Count text that is to be spoken now. Raises RateLimited, Overloaded."""
        project, key = self.project.characters_per_minute, self.key.characters_per_minute
        await self._metering.rates.count("characters", count, self._owners(project, key))

    @asynccontextmanager
    async def session(self, voice: Voice, used: Used) -> AsyncIterator[Meter]:
        """A session of the caller's, and its meter. Raises RateLimited, QuotaExceeded, Overloaded."""
        with self._metering.metrics.of_project(self.project_id) as use:
            async with self._session(voice, used, use) as meter:
                yield meter

    @asynccontextmanager
    async def _session(self, voice: Voice, used: Used, use: ProjectUse) -> AsyncIterator[Meter]:
        await self.check_budget()
        now = asyncio.get_running_loop().time
        limits = self._owners(self._most_sessions(), self.key.sessions)
        record = UsageRecord(
            id=used.id,
            at=utc_now(),
            project_id=self.project_id,
            key_id=self.key_id,
            voice_id=voice.id,
            kind="speech",
            characters=used.characters,
            audio_s=used.audio_s,
        )
        async with self._metering.counts.counted(limits, patience_s=self._metering.patience_s):
            meter = UsageMeter(self._metering.recorder, record, now)
            try:
                yield SessionMeter(self, meter, use)
            finally:
                meter.close()

    async def check_budget(self) -> float | None:
        """The share of the month's budget that is spent; None without one. Raises QuotaExceeded where all is."""
        budget = self.project.usd_per_month
        if budget is None:
            return None
        now = asyncio.get_running_loop().time()
        usd, at = self._metering.spent.get(self.project_id, (0.0, float("-inf")))
        if now - at >= BUDGET_AGE_S:
            before = usd
            used = await self._metering.usage.seen_by(Tenant(self.project_id)).this_month()
            usd = used.usd(self._metering.prices)
            self._metering.spent[self.project_id] = usd, now
            warn_usd = budget * self._metering.prices.warn_at
            if before < warn_usd <= usd:
                log.warning("budget nearly spent", extra={"project": self.project_id, "usd": usd, "budget_usd": budget})
        if usd >= budget:
            raise QuotaExceeded(
                f"the project has spent {usd:.2f} USD of its {budget:.2f} for this month; an operator can raise "
                "`usd_per_month`"
            )
        return usd / budget

    async def check_job(self) -> None:
        """Raises QuotaExceeded where the month's budget is spent, or its GPU seconds are."""
        await self.check_budget()
        limit = self.project.gpu_s_per_month
        if limit is None:
            return
        used = await self._metering.usage.seen_by(Tenant(self.project_id)).gpu_s_this_month()
        if used >= limit:
            raise QuotaExceeded(
                f"the project's jobs have taken {used:.0f} GPU seconds of its {limit:.0f} for this month; an operator "
                "can raise `gpu_s_per_month`"
            )

    def _most_sessions(self) -> int | None:
        """Of the project: its limit, and what the reserve leaves it of the fleet's places, one at least."""
        reserve, limit = self._metering.settings.reserve, self.project.sessions
        if self.key_id is None or not reserve:
            return limit
        places = max(1, math.floor(self._metering.places() * (1 - reserve)))
        return places if limit is None else min(limit, places)

    def _owners(self, project: int | None, key: int | None) -> dict[str, int | None]:
        return {f"project {self.project_id}": project, f"key {self.key_id}": key}


class SessionMeter(Meter):
    """Limits a session's text, and records it with its audio."""

    def __init__(self, caller: CallerMetering, usage: UsageMeter, use: ProjectUse) -> None:
        self._caller = caller
        self._usage = usage
        self._use = use

    async def text(self, chars: int) -> None:
        await self._caller.characters(chars)
        self._usage.add(characters=chars)
        self._use.characters.inc(chars)

    def audio(self, audio_s: float) -> None:
        self._usage.add(audio_s=audio_s)
        self._use.audio_s.inc(audio_s)
