"""Housekeeping, once an hour in the whole fleet: keys that were revoked or expired long ago are forgotten."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import Any

from celery import shared_task

from app.infra.catalog import Catalog
from app.infra.settings import Settings, load_settings
from tasks.ticker import Ticker

INTERVAL_S = 3600
KEY_RETENTION = timedelta(days=30)
CLAIM = "carillon:tasks:janitor"

log = logging.getLogger(__name__)


@shared_task(name="carillon.janitor", ignore_result=True)
def clean() -> int:
    """Forget dead keys. Doing it twice changes nothing. Returns how many went."""
    gone = asyncio.run(forget_dead_keys(load_settings()))
    log.info("dead keys forgotten", extra={"keys": gone})
    return gone


async def forget_dead_keys(settings: Settings) -> int:
    catalog = Catalog(settings.database, pepper=settings.key_pepper)
    try:
        return await catalog.delete_dead_keys(retention=KEY_RETENTION)
    finally:
        await catalog.aclose()


class Janitor(Ticker):
    """Sends the task above; of all tasks processes only the one that claims the hour does."""

    interval_s = 60

    def tick(self, consumer: Any) -> None:
        with consumer.task_consumer.channel.conn_or_acquire() as client:
            claimed = client.set(CLAIM, consumer.hostname, nx=True, ex=INTERVAL_S)
        if claimed:
            consumer.app.send_task("carillon.janitor", queue="interactive", expires=INTERVAL_S)
