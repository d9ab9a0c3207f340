"""The front door's end of the queue: tasks are sent by name, and an unavailable queue fails no request.

What a message asks for is in the catalogue before it is sent; the reconciler sends another when it is lost.
"""

from __future__ import annotations

import asyncio
import logging

from celery import Celery
from kombu.exceptions import OperationalError

from app.platform.tracing import outgoing

SEND_TIMEOUT_S = 3.0

log = logging.getLogger(__name__)


class TaskQueue:
    """Sends messages through `celery`, which knows the broker but no task."""

    def __init__(self, celery: Celery) -> None:
        self._celery = celery

    async def send(self, task: str, *arguments: str, queue: str) -> None:
        """Send one message, or leave it to the reconciler when the broker does not take it in time."""
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await asyncio.to_thread(
                    self._celery.send_task,
                    task,
                    args=arguments,
                    queue=queue,
                    headers=outgoing(),
                    retry=False,
                    ignore_result=True,
                )
        except (OperationalError, OSError, TimeoutError) as error:
            log.warning("message left to the reconciler", extra={"task": task, "error": type(error).__name__})
