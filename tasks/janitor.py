"""Housekeeping, once an hour in the whole fleet.

Keys that were revoked or expired long ago are forgotten, and segments of narrations that were rendered long ago. What a
dying process may have written of a deleted voice or a cancelled job is deleted again, and workers are told of it again,
lest Redis has forgotten meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime, timedelta
from typing import Any

from celery import shared_task

from app.infra.catalog import Catalog
from app.infra.database import utc_now
from app.infra.jobbook import job_prefix
from app.infra.registry import Registry, open_redis
from app.infra.settings import Settings, load_settings
from app.infra.storage import ObjectStore
from app.infra.voicebook import voice_prefix
from tasks.ticker import Ticker

INTERVAL_S = 3600
KEY_RETENTION = timedelta(days=30)
TOMBSTONE_WATCH = timedelta(days=2)
CLAIM = "carillon:tasks:janitor"

log = logging.getLogger(__name__)


@shared_task(name="carillon.janitor", ignore_result=True)
def clean() -> None:
    """Doing it twice changes nothing."""
    asyncio.run(_clean(load_settings()))


async def _clean(settings: Settings) -> None:
    catalog = Catalog(settings.database, pepper=settings.key_pepper)
    try:
        log.info("dead keys forgotten", extra={"keys": await catalog.delete_dead_keys(retention=KEY_RETENTION)})
        since = utc_now() - TOMBSTONE_WATCH
        gone = await catalog.voices.tombstones(since=since)
        prefixes = [voice_prefix(voice_id) for voice_id in gone]
        prefixes += [job_prefix(*job) for job in await catalog.jobs.cancelled(since=since)]
        log.info("leftovers swept", extra={"objects": await asyncio.to_thread(_sweep, settings, prefixes)})
        since = utc_now() - timedelta(days=settings.narration.segment_days)
        log.info("old segments swept", extra={"objects": await asyncio.to_thread(_sweep_segments, settings, since)})
        redis = open_redis(settings)
        try:
            for voice_id in gone:
                await Registry(redis, settings).retire_voice(voice_id)
        finally:
            await redis.aclose()
    finally:
        await catalog.aclose()


def _sweep(settings: Settings, prefixes: list[str]) -> int:
    store = ObjectStore(settings.store)
    try:
        return sum(store.delete_prefix(prefix) for prefix in prefixes)
    finally:
        store.close()


def _sweep_segments(settings: Settings, since: datetime) -> int:
    """A narration that needs one again renders it again."""
    store = ObjectStore(settings.store)
    try:
        old = [key for key, written in store.written("voices/") if "/segments/" in key and written < since]
        for key in old:
            store.delete(key)
        return len(old)
    finally:
        store.close()


class Janitor(Ticker):
    """Sends the task above; of all tasks processes only the one that claims the hour does."""

    interval_s = 60

    def tick(self, consumer: Any) -> None:
        with consumer.task_consumer.channel.conn_or_acquire() as client:
            claimed = client.set(CLAIM, consumer.hostname, nx=True, ex=INTERVAL_S)
        if claimed:
            consumer.app.send_task("carillon.janitor", queue="interactive", expires=INTERVAL_S)
