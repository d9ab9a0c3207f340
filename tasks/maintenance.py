"""Periodic maintenance, run by one tasks process of a fleet at a time (`scheduler`).

`reconcile`, every few seconds: sends again what was lost on the way. The queue may lose a message, and a worker its
life; the catalogue knows what is not over. Several messages for one job do no harm, since its row is claimed by one.

`clean`, once an hour: API keys that ended long ago are forgotten, and the answers kept yesterday. What a dying process
may have written of a deleted voice, a cancelled job or a deleted narration is deleted again, and workers are notified
of deleted voices again, lest Redis has forgotten meanwhile. Segments of deleted narrations go where no other lists
them, those that none lists when they are old, and uploads that were announced a day ago and never completed.
"""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import AbstractAsyncContextManager, aclosing, closing
from dataclasses import dataclass
from datetime import datetime, timedelta

from celery import Celery
from kombu.exceptions import OperationalError
from redis import Redis
from redis.exceptions import RedisError

from app.catalog import Catalog
from app.errors import CarillonError, ObjectMissing
from app.fleet.registry import Registry, open_redis
from app.narration.segment_store import TAKES
from app.platform.broker import (
    CLONE,
    INTERACTIVE,
    NARRATE,
    RECONCILE_S,
    RENDER,
    WEBHOOK,
    narration_sent_key,
    train_queue,
    webhook_sent_key,
)
from app.platform.database import utc_now
from app.platform.object_keys import forgotten_key, job_prefix, voice_prefix
from app.platform.object_store import ObjectStore
from app.platform.settings import Settings, load_settings

STALLED_S = 10.0
"""A job just made has its message under way."""

WEBHOOK_DAYS = 1
LONGEST_PAUSE_S = 900
RESENT_S = 120

KEY_RETENTION = timedelta(days=30)
TOMBSTONE_WATCH = timedelta(days=2)
ORPHAN_AGE = timedelta(days=1)

log = logging.getLogger(__name__)


def reconcile(celery: Celery) -> None:
    """Send a message for every job that lacks one, and for every webhook whose time has come."""
    settings = load_settings()
    try:
        left = asyncio.run(left_over(settings))
        with Redis.from_url(celery.conf.broker_url, socket_timeout=5) as redis:
            for queue, job_ids in jobs_to_send(redis, left.jobs):
                for job_id in job_ids:
                    celery.send_task(CLONE, args=[job_id], queue=queue, expires=4 * RECONCILE_S)
            for narration_id in narrations_to_send(redis, left.narrations):
                celery.send_task(NARRATE, args=[narration_id], queue=RENDER)
            for job_id, finished_at in left.unannounced:
                if due(redis, job_id, age_s=(utc_now() - finished_at).total_seconds()):
                    celery.send_task(WEBHOOK, args=[job_id], queue=INTERACTIVE, expires=RECONCILE_S)
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

    One that no process works on may wait in the queue or have lost its message: it gets another every RESENT_S. One in
    work gets messages from its own process: another only where the queue is empty, and a process has time for it.
    """
    idle = redis.llen(RENDER) == 0
    return [
        narration_id
        for narration_id, held in stalled
        if (idle if held else redis.set(narration_sent_key(narration_id), 1, nx=True, ex=RESENT_S))
    ]


def due(redis: Redis, job_id: str, *, age_s: float) -> bool:
    """Whether to send a job's webhook again: the pauses grow with its age, from 15 s to a quarter of an hour."""
    pause_s = int(min(max(age_s, RECONCILE_S), LONGEST_PAUSE_S))
    return bool(redis.set(webhook_sent_key(job_id), 1, nx=True, ex=pause_s))


@dataclass(frozen=True)
class LeftOver:
    """What is not over and in no process, and what ended, and when, without its webhook being received.

    Each job comes with the model it trains, each narration with whether another step of it is in work.
    """

    jobs: list[tuple[str, str]]
    narrations: list[tuple[str, bool]]
    unannounced: list[tuple[str, datetime]]


async def left_over(settings: Settings) -> LeftOver:
    """What is to be sent again. Ends what was to stop."""
    since = utc_now() - timedelta(days=WEBHOOK_DAYS)
    async with _catalog(settings) as catalog:
        jobs, narrations = catalog.jobs, catalog.narrations
        await jobs.end_cancelled()
        await narrations.end_cancelled()
        return LeftOver(
            await jobs.stalled(for_s=STALLED_S),
            await narrations.stalled(for_s=STALLED_S),
            await jobs.unannounced(since=since) + await narrations.unannounced(since=since),
        )


async def clean(settings: Settings) -> None:
    """Doing it twice changes nothing."""
    since = utc_now() - TOMBSTONE_WATCH
    async with _catalog(settings) as catalog:
        log.info("dead keys forgotten", extra={"keys": await catalog.keys.delete_dead(retention=KEY_RETENTION)})
        log.info("old answers forgotten", extra={"answers": await catalog.idempotency.delete_old()})
        gone = await catalog.voices.tombstones(since=since)
        await catalog.voices.blank_jobs(gone)
        prefixes = [voice_prefix(voice_id) for voice_id in gone]
        prefixes += [job_prefix(*job) for job in await catalog.jobs.cancelled(since=since)]
        log.info("leftovers swept", extra={"objects": await asyncio.to_thread(_sweep, settings, prefixes)})
        existing = await catalog.narrations.existing()
    objects = await asyncio.to_thread(sweep_store, settings, existing, utc_now())
    log.info("store swept", extra={"objects": objects})
    async with aclosing(open_redis(settings)) as redis:
        for voice_id in gone:
            await Registry(redis, settings).retire_voice(voice_id)


def _catalog(settings: Settings) -> AbstractAsyncContextManager[Catalog]:
    return aclosing(Catalog(settings.database, pepper=settings.key_pepper))


def _sweep(settings: Settings, prefixes: list[str]) -> int:
    with closing(ObjectStore(settings.store)) as store:
        return sum(store.delete_prefix(prefix) for prefix in prefixes)


def sweep_store(settings: Settings, existing: set[str], now: datetime) -> int:
    """Delete what lies below narrations that have no row, their segments and old ones that no narration lists, and
    uploads that were never completed. Returns how many objects.

    A narration's files come before its row, and a segment before it is listed: only what is old is an orphan.
    """
    with closing(ObjectStore(settings.store)) as store:
        lists, orphans, forgotten = [], [], []
        for key, written in store.written("narrations/"):
            if key == forgotten_key(narration_id := key.split("/")[1]) and narration_id not in existing:
                forgotten.append(key)
            elif narration_id not in existing and written < now - ORPHAN_AGE:
                orphans.append(key)
            elif "/takes/" in key:
                lists.append(key)
        doomed = {digest for key in forgotten for digest in _forgotten(store, key)}
        since = now - timedelta(days=settings.narration.segment_days)
        segments = []
        for key, written in store.written("voices/"):
            if "/segments/" in key and (written < since or _digest(key) in doomed):
                segments.append(key)
            elif "/uploads/" in key and written < now - ORPHAN_AGE:
                orphans.append(key)
        if segments:
            listed = {digest for key in lists for digest in _digests(store, key)}
            segments = [key for key in segments if _digest(key) not in listed]
        # Its JSON before its FLAC: a reader that finds the one must find the other. And all before what names them.
        segments.sort(key=lambda key: not key.endswith(".json"))
        return store.delete_all([*orphans, *segments]) + store.delete_all(forgotten)


def _forgotten(store: ObjectStore, key: str) -> set[str]:
    try:
        return set(json.loads(store.get(key)))
    except (ObjectMissing, ValueError):
        return set()


def _digests(store: ObjectStore, key: str) -> set[str]:
    try:
        takes = TAKES.validate_json(store.get(key))
    except ObjectMissing:
        return set()
    return {_digest(take.key) for take in takes.values()}


def _digest(key: str) -> str:
    """What a segment is called, in the name of its JSON and of its FLAC."""
    return key.rpartition("/")[2].partition(".")[0].partition("-")[0]
