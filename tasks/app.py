"""The process that does queued work: `carillon tasks`."""

from __future__ import annotations

import os
import socket

from celery import Celery

from app.core.orpheus import read_layout
from app.infra.broker import QUEUES, make_celery, train_queue
from app.infra.checkpoints import locate
from app.infra.settings import Settings
from tasks.janitor import Janitor
from tasks.lease import Lease
from tasks.reconcile import Reconciler
from tasks.ticker import Heartbeat

MODULES = ("tasks.clone", "tasks.janitor", "tasks.journal", "tasks.narrate", "tasks.reconcile", "tasks.webhook")


def make_worker_app(settings: Settings) -> Celery:
    """The application with its tasks, the lease and the clockwork."""
    celery = make_celery(settings)
    celery.conf.include = MODULES
    assert celery.steps is not None
    celery.steps["consumer"].update({Lease, Heartbeat, Janitor, Reconciler})
    return celery


def run(settings: Settings, *, queues: tuple[str, ...] = QUEUES) -> None:
    """Work until a signal: SIGTERM lets the task in work go on for the soft shutdown's time, then gives it back.

    Rendering is waiting for workers, so a process that does nothing else renders several chapters at a time. The caller
    has set REMAP_SIGTERM=SIGQUIT before Celery was imported, or SIGTERM waits for the task's end.
    """
    names = [train_queue(_own_model(settings)) if queue == "train" else queue for queue in queues]
    node = f"tasks-{os.getpid()}@{socket.gethostname()}"
    options = [
        "--hostname",
        node,
        "--queues",
        ",".join(names),
        "--concurrency",
        str(settings.narration.at_once if queues == ("render",) else 1),
        "--loglevel",
        settings.log_level,
        "--without-gossip",
        "--without-mingle",
    ]
    make_worker_app(settings).worker_main(["worker", *options])


def _own_model(settings: Settings) -> str:
    """The name of the model this machine trains."""
    model_dir = locate(settings.model, variable="CARILLON_MODEL")
    codec_dir = locate(settings.codec, variable="CARILLON_CODEC")
    return read_layout(model_dir, codec_dir, settings.speech).speech.name
