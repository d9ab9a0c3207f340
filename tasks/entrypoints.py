"""Every task by its name. A tasks process knows them all and imports what one does when the first of it comes.

A task claims nothing and knows nothing of its work: it reads the settings, runs a coroutine, and sends what is next.
"""

from __future__ import annotations

import asyncio

from celery import shared_task
from celery.app.task import Task

from app.platform.broker import CLEAN, CLONE, INTERACTIVE, NARRATE, RENDER, WEBHOOK
from app.platform.settings import load_settings
from app.platform.tracing import outgoing
from tasks.metrics import meters


@shared_task(name=CLONE, bind=True, ignore_result=True, max_retries=None)
def clone(task: Task, job_id: str) -> None:
    """Work on a job until it is over. A duplicate message does nothing: the row says who holds the job."""
    from tasks.clone import work_on

    over = asyncio.run(work_on(load_settings(), job_id))
    if over is None:
        return
    if over.finished_at:
        meters().over(
            over.kind.value,
            over.state.value,
            created_at=over.created_at,
            finished_at=over.finished_at,
            retries=over.attempt - 1,
        )
    if over.gate:
        meters().gated(over.gate)
    if over.webhook_url:
        task.app.send_task(WEBHOOK, args=[job_id], queue=INTERACTIVE, headers=outgoing())


@shared_task(name=NARRATE, bind=True, ignore_result=True, max_retries=None)
def narrate(task: Task, narration_id: str) -> None:
    """Do the step whose turn it is, of this narration or another one: there is a message for each of them.

    A duplicate message does nothing: the rows say what there is to do.
    """
    from tasks.narrate import work_on

    ended = asyncio.run(work_on(load_settings()))
    if ended is None:
        return
    narration = ended.narration
    for _ in range(ended.messages):
        task.app.send_task(NARRATE, args=[narration.id], queue=RENDER, headers=outgoing())
    if narration.finished_at:
        meters().over(
            "narration", narration.state.value, created_at=narration.created_at, finished_at=narration.finished_at
        )
    if narration.state.over and narration.webhook_url:
        task.app.send_task(WEBHOOK, args=[narration.id], queue=INTERACTIVE, headers=outgoing())


@shared_task(name=WEBHOOK, ignore_result=True)
def announce(job_id: str) -> None:
    """Notify of a job or narration that is over, once."""
    from tasks.webhook import announce

    asyncio.run(announce(load_settings(), job_id))


@shared_task(name=CLEAN, ignore_result=True)
def clean() -> None:
    """Doing it twice changes nothing."""
    from tasks.maintenance import clean

    asyncio.run(clean(load_settings()))
