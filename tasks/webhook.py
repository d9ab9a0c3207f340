"""Tells a client that its job or narration is over, until it is heard or a day has passed.

The body is what `GET /v1/clones/{id}` or `/v1/narrations/{id}` shows, without what is long. The reconciler sends the
task again, soon at first and then every quarter of an hour; what is told twice has the same `webhook-id`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from celery import shared_task

from app.core.errors import InvalidRequest
from app.infra import webhooks
from app.infra.catalog import Catalog
from app.infra.jobbook import JobBook
from app.infra.narrationbook import ID_PREFIX, NarrationBook
from app.infra.settings import load_settings

log = logging.getLogger(__name__)


@shared_task(name="carillon.webhook", ignore_result=True)
def announce(job_id: str) -> None:
    """Tell of a job or narration that is over, once."""
    asyncio.run(_announce(job_id))


async def _announce(job_id: str) -> None:
    settings = load_settings()
    catalog = Catalog(settings.database, pepper=settings.key_pepper)
    book: JobBook | NarrationBook = catalog.narrations if job_id.startswith(ID_PREFIX) else catalog.jobs
    try:
        url, message_id, body = await _message(catalog, job_id)
        try:
            heard = await webhooks.post(url, body, settings.cloning, message_id=message_id, now_s=time.time())
        except InvalidRequest as error:
            log.warning("webhook refused", extra={"job": job_id, "error": error.message})
            heard = True
        if heard:
            await book.announced(job_id)
    finally:
        await catalog.aclose()


async def _message(catalog: Catalog, job_id: str) -> tuple[str, str, dict[str, Any]]:
    """Where to tell it, under which id, and what. A narration can end more than once, each time as another message."""
    if job_id.startswith(ID_PREFIX):
        narration = await catalog.narrations.get(job_id)
        assert narration.webhook_url
        data = narration.model_dump(mode="json", exclude={"findings", "options", "voices", "webhook_url"})
        body = {"type": f"narration.{narration.state.value}", "data": data}
        return narration.webhook_url, f"{narration.id}-{narration.revision}", body
    job = await catalog.jobs.get(job_id)
    assert job.webhook_url
    data = job.model_dump(mode="json", exclude={"report", "config", "webhook_url"})
    return job.webhook_url, job.id, {"type": f"clone.{job.state.value}", "data": data}
