"""Sends again what was lost on the way: jobs and narrations that nobody holds, webhooks that nobody heard.

The queue may lose a message, and a worker its life; the catalogue knows what is not over. Several messages for one job
do no harm, since its row is claimed by one. Every tasks process does this beside its work, one of them at a time.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import datetime, timedelta

from celery import Celery
from kombu.exceptions import OperationalError
from redis import Redis
from redis.exceptions import RedisError

from app.catalog import Catalog
from app.errors import CarillonError
from app.platform.broker import CLONE, NARRATE, RECONCILE_S, WEBHOOK, train_queue
from app.platform.database import utc_now
from app.platform.settings import Settings, load_settings

STALLED_S = 10.0
"""A job just made has its message under way."""

WEBHOOK_DAYS = 1
LONGEST_PAUSE_S = 900
RESENT_S = 120

log = logging.getLogger(__name__)


def reconcile(celery: Celery) -> None:
    """Send a message for every job that lacks one, and for every webhook whose time has come."""
    settings = load_settings()
    assert settings.redis_url
    try:
        left = asyncio.run(left_over(settings))
        with Redis.from_url(settings.redis_url.get_secret_value(), socket_timeout=5) as redis:
            for queue, job_ids in jobs_to_send(redis, left.jobs):
                for job_id in job_ids:
                    celery.send_task(CLONE, args=[job_id], queue=queue, expires=4 * RECONCILE_S)
            for narration_id in narrations_to_send(redis, left.narrations):
                celery.send_task(NARRATE, args=[narration_id], queue="render")
            for job_id, finished_at in left.unannounced:
                if due(redis, job_id, age_s=(utc_now() - finished_at).total_seconds()):
                    celery.send_task(WEBHOOK, args=[job_id], queue="interactive", expires=RECONCILE_S)
    except (CarillonError, RedisError, OperationalError, OSError) as error:
        log.warning("reconciliation failed", extra={"error": type(error).__name__})


def jobs_to_send(redis: Redis, stalled: list[tuple[str, str]]) -> list[tuple[str, list[str]]]:
    """The queues that hold fewer messages than jobs (id, model) which wait for a trainer, with these."""
    waiting: dict[str, list[str]] = {}
    for job_id, model in stalled:
        waiting.setdefault(train_queue(model), []).append(job_id)
    return [(queue, job_ids) for queue, job_ids in waiting.items() if redis.llen(queue) < len(job_ids)]  # type: ignore[operator]


def narrations_to_send(redis: Redis, stalled: list[tuple[str, bool]]) -> list[str]:
    """The narrations whose message may be lost. A message too many does nothing, so that doubt is cheap.

    One that nobody works on may wait in the queue or have lost its message: it gets another every RESENT_S. One that is
    worked on gets messages from who works on it: another only where the queue is empty, and somebody has time for it.
    """
    idle = redis.llen("render") == 0
    return [
        narration_id
        for narration_id, held in stalled
        if (idle if held else redis.set(f"carillon:narrate:{narration_id}", 1, nx=True, ex=RESENT_S))
    ]


def due(redis: Redis, job_id: str, *, age_s: float) -> bool:
    """Whether to tell of a job again: the pauses grow with its age, from 15 s to a quarter of an hour."""
    pause_s = int(min(max(age_s, RECONCILE_S), LONGEST_PAUSE_S))
    return bool(redis.set(f"carillon:webhook:{job_id}", 1, nx=True, ex=pause_s))


@dataclass(frozen=True)
class LeftOver:
    """What is not over and has nobody for it, and what ended, and when, without its webhook being heard.

    Each job comes with the model it trains, each narration with whether anybody works on another step of it.
    """

    jobs: list[tuple[str, str]]
    narrations: list[tuple[str, bool]]
    unannounced: list[tuple[str, datetime]]


async def left_over(settings: Settings) -> LeftOver:
    """What is to be sent again. Ends what was to stop."""
    catalog = Catalog(settings.database, pepper=settings.key_pepper)
    jobs, narrations = catalog.jobs, catalog.narrations
    since = utc_now() - timedelta(days=WEBHOOK_DAYS)
    try:
        await jobs.end_cancelled()
        await narrations.end_cancelled()
        return LeftOver(
            await jobs.stalled(for_s=STALLED_S),
            await narrations.stalled(for_s=STALLED_S),
            await jobs.unannounced(since=since) + await narrations.unannounced(since=since),
        )
    finally:
        await catalog.aclose()
