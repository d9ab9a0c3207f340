"""The process that does queued work: `carillon tasks`."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

from celery import Celery

from app.platform.broker import QUEUES, RENDER, TRAIN, make_celery, train_queue
from app.platform.model_files import locate
from app.platform.settings import Settings
from app.speech.token_layout import read_layout
from tasks.lanes import Lanes, OnDemand
from tasks.message_lease import Lease
from tasks.metrics import answering
from tasks.scheduler import Heartbeat, Housekeeping, Reconciliation
from tasks.survey import Surveys

MODULES = ("tasks.entrypoints", "tasks.logs", "tasks.observing")


def make_worker_app(settings: Settings, *, lanes: Mapping[str, int]) -> Celery:
    """The application with its tasks, the lease and the clockwork; `lanes` has each queue's jobs at a time."""
    celery = make_celery(settings)
    celery.conf.include = MODULES
    celery.conf.worker_autoscaler = f"{OnDemand.__module__}:{OnDemand.__qualname__}"
    celery.conf.carillon_lanes = dict(lanes)
    assert celery.steps is not None
    celery.steps["consumer"].update({Lanes, Lease, Heartbeat, Housekeeping, Reconciliation})
    if settings.metrics.tasks_port is not None:
        celery.steps["consumer"].add(Surveys)
    return celery


def run(settings: Settings, *, queues: tuple[str, ...] = QUEUES) -> None:
    """Work until a signal: SIGTERM lets the tasks in work go on for the soft shutdown's time, then gives them back.

    Rendering is waiting for workers, so it has several places; a queue of another kind has one. No child is started
    before there is a job for it. The caller has set REMAP_SIGTERM=SIGQUIT before Celery was imported, or SIGTERM waits
    for the tasks' end.
    """
    lanes = {
        train_queue(_own_model(settings)) if queue == TRAIN else queue: _places(queue, settings) for queue in queues
    }
    options = [
        *("--hostname", f"tasks-{os.getpid()}@{socket.gethostname()}"),
        *("--queues", ",".join(lanes)),
        *("--autoscale", f"{sum(lanes.values())},0"),
        *("--loglevel", settings.log_level),
        "--without-gossip",
        "--without-mingle",
    ]
    with answering(settings.metrics, lambda: Surveys.latest):
        make_worker_app(settings, lanes=lanes).worker_main(["worker", *options])


def _places(queue: str, settings: Settings) -> int:
    return settings.narration.at_once if queue == RENDER else 1


def _own_model(settings: Settings) -> str:
    """The name of the model this machine trains."""
    model_dir = locate(settings.model, variable="CARILLON_MODEL")
    codec_dir = locate(settings.codec, variable="CARILLON_CODEC")
    return read_layout(model_dir, codec_dir, settings.speech).speech.name
