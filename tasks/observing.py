"""Task instrumentation: request id, trace and duration of every task.

Celery imports this module in each of its processes, and calls it before and after each task.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Any

from celery.signals import task_postrun, task_prerun, worker_process_init

from app.platform.logs import REQUEST_ID
from app.platform.settings import load_settings
from app.platform.tracing import REQUEST_ID_HEADER, configure_tracing, flush_traces, span
from tasks.metrics import meters

_RUNNING: dict[str, tuple[float, ExitStack]] = {}
"""When each task began, and what ends with it."""


@worker_process_init.connect
def _begin_process(**_: Any) -> None:
    configure_tracing(load_settings(), "tasks")
    meters()


@task_prerun.connect
def _begin(task_id: str, task: Any, **_: Any) -> None:
    headers = {name.lower(): value for name, value in (task.request.headers or {}).items() if isinstance(value, str)}
    ending = ExitStack()
    token = REQUEST_ID.set(headers.get(REQUEST_ID_HEADER))
    ending.callback(REQUEST_ID.reset, token)
    ending.enter_context(span(task.name, of=headers))
    _RUNNING[task_id] = time.monotonic(), ending


@task_postrun.connect
def _end(task_id: str, task: Any, state: str | None = None, **_: Any) -> None:
    began_at, ending = _RUNNING.pop(task_id, (time.monotonic(), ExitStack()))
    meters().tasks.labels(task.name, (state or "lost").lower()).observe(time.monotonic() - began_at)
    ending.close()
    flush_traces()
