"""Sends again what was lost on the way: jobs that nobody holds, webhooks that nobody heard.

The queue may lose a message, and a worker its life; the catalogue knows what is not over. Several messages for one job
do no harm, since the row is claimed by one.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any

from celery import shared_task
from celery.app.task import Task

from app.core.cloning import CloneJob
from app.infra.catalog import Catalog
from app.infra.database import utc_now
from app.infra.settings import Settings, load_settings
from tasks.ticker import Ticker

INTERVAL_S = 15
FORSAKEN_S = 10.0
"""A job just made has its message under way."""

WEBHOOK_DAYS = 1
CLAIM = "carillon:tasks:reconcile"


@shared_task(name="carillon.reconcile", bind=True, ignore_result=True)
def reconcile(task: Task) -> None:
    """Send a message for every job that lacks one. Doing it twice changes nothing."""
    forsaken, unannounced = asyncio.run(left_over(load_settings()))
    for job in forsaken:
        task.app.send_task("carillon.clone", args=[job.id], queue="train", expires=INTERVAL_S * 4)
    for job in unannounced:
        task.app.send_task("carillon.webhook", args=[job.id], queue="interactive", expires=INTERVAL_S)


async def left_over(settings: Settings) -> tuple[list[CloneJob], list[CloneJob]]:
    """Jobs that nobody holds, and jobs that ended without their webhook being heard."""
    catalog = Catalog(settings.database, pepper=settings.key_pepper)
    try:
        now = utc_now()
        ended = await catalog.jobs.unannounced(since=now - timedelta(days=WEBHOOK_DAYS))
        return await catalog.jobs.forsaken(for_s=FORSAKEN_S), [job for job in ended if due(job, now)]
    finally:
        await catalog.aclose()


def due(job: CloneJob, now: datetime) -> bool:
    """Whether it is time to tell of a job again: after 1, 2, 4, … 64 intervals, then every 64."""
    assert job.finished_at
    intervals = int((now - job.finished_at).total_seconds() // INTERVAL_S)
    return intervals > 0 and (intervals % 64 == 0 or intervals & (intervals - 1) == 0)


class Reconciler(Ticker):
    """Sends the task above; of all tasks processes only the one that claims the moment does."""

    interval_s = INTERVAL_S / 3

    def tick(self, consumer: Any) -> None:
        with consumer.task_consumer.channel.conn_or_acquire() as client:
            claimed = client.set(CLAIM, consumer.hostname, nx=True, ex=INTERVAL_S)
        if claimed:
            consumer.app.send_task("carillon.reconcile", queue="interactive", expires=INTERVAL_S)
