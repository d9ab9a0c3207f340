"""Notifies a client that its job or narration is over, until the webhook is received or a day has passed.

The body is that of `GET /v1/clones/{id}` or `/v1/narrations/{id}`, without long and derived fields. The
reconciler sends the task again, soon at first and then every quarter of an hour; what is sent twice has the same
`webhook-id`.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from app.catalog import Catalog
from app.errors import InvalidRequest
from app.narration.rows import ID_PREFIX
from app.platform import webhooks
from app.platform.settings import CloningSettings, Settings

LONG_OR_OURS = {
    "chapters": True,
    "findings": True,
    "options": True,
    "takes": True,
    "voices": True,
    "webhook_url": True,
    "script_key": True,
    "source": {"key", "cover_key"},
    "output": {"key", "timeline_key"},
}

log = logging.getLogger(__name__)


async def announce(settings: Settings, job_id: str) -> None:
    """Notify of a job or narration that is over, once."""
    catalog = Catalog(settings.database, pepper=settings.key_pepper)
    try:
        if job_id.startswith(ID_PREFIX):
            await _announce_narration(catalog, settings.cloning, job_id)
        else:
            await _announce_job(catalog, settings.cloning, job_id)
    finally:
        await catalog.aclose()


async def _announce_job(catalog: Catalog, settings: CloningSettings, job_id: str) -> None:
    job = await catalog.jobs.get(job_id)
    if job.webhook_url is None:
        return
    data = job.model_dump(mode="json", exclude={"report", "config", "webhook_url"})
    body = {"type": f"clone.{job.state.value}", "data": data}
    if await _told(job.webhook_url, body, settings, message_id=job.id):
        await catalog.jobs.announced(job_id)


async def _announce_narration(catalog: Catalog, settings: CloningSettings, narration_id: str) -> None:
    """It can end more than once, each time as another message."""
    narration = await catalog.narrations.to_announce(narration_id)
    if narration is None or narration.webhook_url is None:
        return
    data = narration.model_dump(mode="json", exclude=LONG_OR_OURS)
    body = {"type": f"narration.{narration.state.value}", "data": data}
    if await _told(narration.webhook_url, body, settings, message_id=f"{narration.id}-{narration.revision}"):
        await catalog.narrations.announced(narration)


async def _told(url: str, body: dict[str, Any], settings: CloningSettings, *, message_id: str) -> bool:
    """Whether nothing is left to do: it was received, or never will be."""
    try:
        return await webhooks.post(url, body, settings, message_id=message_id, now_s=time.time())
    except InvalidRequest as error:
        log.warning("webhook refused", extra={"webhook": message_id, "error": error.message})
        return True
