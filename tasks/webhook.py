"""Tells a client that its job is over, until it is heard or a day has passed.

The body is the job as `GET /v1/clones/{id}` shows it, without its data report. The reconciler sends the task again,
soon at first and then every quarter of an hour; what is told twice has the same `webhook-id`.
"""

from __future__ import annotations

import asyncio
import logging
import time

from celery import shared_task

from app.core.errors import InvalidRequest
from app.infra import webhooks
from app.infra.catalog import Catalog
from app.infra.settings import load_settings

log = logging.getLogger(__name__)


@shared_task(name="carillon.webhook", ignore_result=True)
def announce(job_id: str) -> None:
    """Tell of a job that is over, once."""
    asyncio.run(_announce(job_id))


async def _announce(job_id: str) -> None:
    settings = load_settings()
    catalog = Catalog(settings.database, pepper=settings.key_pepper)
    try:
        job = await catalog.jobs.get(job_id)
        assert job.webhook_url
        data = job.model_dump(mode="json", exclude={"report", "config", "webhook_url"})
        body = {"type": f"clone.{job.state.value}", "data": data}
        try:
            heard = await webhooks.post(job.webhook_url, body, settings.cloning, message_id=job.id, now_s=time.time())
        except InvalidRequest as error:
            log.warning("webhook refused", extra={"job": job_id, "error": error.message})
            heard = True
        if heard:
            await catalog.jobs.announced(job_id)
    finally:
        await catalog.aclose()
