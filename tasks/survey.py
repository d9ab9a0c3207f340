"""Pending work, by the catalogue and the broker: jobs by state, and how long each queue's oldest waits.

A job waits while no process holds it, whether its message is on the way, lost, or not sent yet.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import func, select

from app.catalog import Catalog
from app.errors import CarillonError
from app.platform import claims
from app.platform.broker import INTERACTIVE, RENDER, train_queue
from app.platform.database import Database, utc_now
from app.platform.settings import Settings, load_settings
from app.platform.tables import JobRow, NarrationRow, StepRow, VoiceRow
from tasks.scheduler import Ticker

SURVEY_S = 15

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Queue:
    jobs: int = 0
    oldest_s: float = 0.0
    messages: int = 0


@dataclass(frozen=True)
class Survey:
    """What was found: jobs that are not over by kind and state, and the queues."""

    states: Mapping[tuple[str, str], int]
    queues: Mapping[str, Queue]


class Surveys(Ticker):
    """Surveys by the clock, in a thread of its own: the thread that talks to the broker must not wait for SQL."""

    interval_s = SURVEY_S
    latest: Survey | None = None
    """What the last one found."""

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self._thread: threading.Thread | None = None

    def tick(self, consumer: Any) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._look, args=(consumer.app,), name="survey", daemon=True)
            self._thread.start()

    @classmethod
    def _look(cls, celery: Any) -> None:
        try:
            with Redis.from_url(celery.conf.broker_url, socket_timeout=5) as redis:
                cls.latest = survey(load_settings(), redis)
        except (CarillonError, RedisError, OSError) as error:
            log.warning("survey failed", extra={"error": type(error).__name__})


def survey(settings: Settings, redis: Redis) -> Survey:
    """Look once. Raises StoreUnavailable, RedisError."""
    states, queues = asyncio.run(_of_catalog(settings, utc_now()))
    for queue in (INTERACTIVE, RENDER, *queues):
        messages = redis.llen(queue)
        queues[queue] = replace(queues.get(queue, Queue()), messages=int(messages))  # type: ignore[arg-type]
    return Survey(states, queues)


async def _of_catalog(settings: Settings, now: datetime) -> tuple[dict[tuple[str, str], int], dict[str, Queue]]:
    async with aclosing(Catalog(settings.database, pepper=settings.key_pepper)) as catalog:
        return await _states(catalog.database), await _waiting(catalog.database, now)


async def _states(database: Database) -> dict[tuple[str, str], int]:
    jobs = select(JobRow.kind, JobRow.state, func.count()).where(JobRow.finished_at.is_(None))
    narrations = select(NarrationRow.state, func.count()).where(NarrationRow.finished_at.is_(None))
    async with database.reading() as connection:
        found = {
            (kind, state): number
            for kind, state, number in await connection.execute(jobs.group_by(JobRow.kind, JobRow.state))
        }
        for state, number in await connection.execute(narrations.group_by(NarrationRow.state)):
            found["narration", state] = number
    return found


async def _waiting(database: Database, now: datetime) -> dict[str, Queue]:
    jobs = (
        select(VoiceRow.model, func.count(), func.min(JobRow.created_at, type_=JobRow.created_at.type))
        .join(VoiceRow, VoiceRow.id == JobRow.voice_id)
        .where(JobRow.finished_at.is_(None), claims.unheld(JobRow, now))
        .group_by(VoiceRow.model)
    )
    steps = select(func.count(), func.min(StepRow.released_at, type_=StepRow.released_at.type)).where(
        StepRow.finished_at.is_(None),
        claims.unheld(StepRow, now),
        StepRow.narration_id.in_(select(NarrationRow.id).where(NarrationRow.finished_at.is_(None))),
    )
    async with database.reading() as connection:
        found = {
            train_queue(model): Queue(number, (now - oldest).total_seconds())
            for model, number, oldest in await connection.execute(jobs)
        }
        number, oldest = (await connection.execute(steps)).one()
    found[RENDER] = Queue(number, (now - oldest).total_seconds() if oldest else 0.0)
    return found
