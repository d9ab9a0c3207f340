"""Housekeeping, once an hour in the whole fleet (`ticker.Housekeeping`).

Keys that were revoked or expired long ago are forgotten. What a dying process may have written of a deleted voice, a
cancelled job or a deleted narration is deleted again, and workers are told of deleted voices again, lest Redis has
forgotten meanwhile. Rendered segments that no narration has any more go when they are old.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime, timedelta

from app.catalog import Catalog
from app.errors import ObjectMissing
from app.fleet.registry import Registry, open_redis
from app.narration.segment_store import TAKES
from app.platform.database import utc_now
from app.platform.object_keys import job_prefix, voice_prefix
from app.platform.object_store import ObjectStore
from app.platform.settings import Settings

KEY_RETENTION = timedelta(days=30)
TOMBSTONE_WATCH = timedelta(days=2)
ORPHAN_AGE = timedelta(days=1)

log = logging.getLogger(__name__)


async def clean(settings: Settings) -> None:
    """Doing it twice changes nothing."""
    catalog = Catalog(settings.database, pepper=settings.key_pepper)
    try:
        log.info("dead keys forgotten", extra={"keys": await catalog.delete_dead_keys(retention=KEY_RETENTION)})
        since = utc_now() - TOMBSTONE_WATCH
        gone = await catalog.voices.tombstones(since=since)
        prefixes = [voice_prefix(voice_id) for voice_id in gone]
        prefixes += [job_prefix(*job) for job in await catalog.jobs.cancelled(since=since)]
        log.info("leftovers swept", extra={"objects": await asyncio.to_thread(_sweep, settings, prefixes)})
        existing = await catalog.narrations.existing()
        objects = await asyncio.to_thread(sweep_narrations, settings, existing, utc_now())
        log.info("narrations swept", extra={"objects": objects})
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


def sweep_narrations(settings: Settings, existing: set[str], now: datetime) -> int:
    """Delete what lies below narrations that have no row, and old segments that no narration lists. Returns how many.

    A narration's files come before its row, and a segment before it is listed: only what is old is nobody's.
    """
    store = ObjectStore(settings.store)
    try:
        lists, orphans = [], []
        for key, written in store.written("narrations/"):
            if key.split("/")[1] not in existing and written < now - ORPHAN_AGE:
                orphans.append(key)
            elif "/takes/" in key:
                lists.append(key)
        since = now - timedelta(days=settings.narration.segment_days)
        old = [key for key, written in store.written("voices/") if "/segments/" in key and written < since]
        if old:
            listed = {digest for key in lists for digest in _digests(store, key)}
            old = [key for key in old if _digest(key) not in listed]
        # Its JSON before its FLAC: whoever finds the one shall find the other.
        return store.delete_all([*orphans, *sorted(old, key=lambda key: not key.endswith(".json"))])
    finally:
        store.close()


def _digests(store: ObjectStore, key: str) -> set[str]:
    try:
        takes = TAKES.validate_json(store.get(key))
    except ObjectMissing:
        return set()
    return {_digest(take.key) for take in takes.values()}


def _digest(key: str) -> str:
    """What a segment is called, in the name of its JSON and of its FLAC."""
    return key.rpartition("/")[2].partition(".")[0].partition("-")[0]
