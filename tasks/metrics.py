"""What a tasks process reports to Prometheus. Every name it has is defined here, once.

The work is done in Celery's children, which write into files of a directory (prometheus_client's multiprocess mode);
the parent, which lives as long as the process does, adds them up and answers. It adds what waits, as `tasks.survey`
last found it: each tasks process of a fleet reports the same of that.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from itertools import product

from prometheus_client import CollectorRegistry, Counter, Histogram, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from app.platform.broker import CLEAN, CLONE, NARRATE, WEBHOOK
from app.platform.settings import MetricsSettings
from app.voices.models import FINAL_STATES, CloneKind, GateReport
from tasks.survey import Survey

DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
"""prometheus_client reads it when it is imported, so the parent sets it before its first child starts."""

TASK_BUCKETS_S = (0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 14_400)
JOB_BUCKETS_S = (60, 300, 900, 1800, 3600, 7200, 14_400, 43_200, 86_400)

log = logging.getLogger(__name__)


TASKS = (CLONE, NARRATE, WEBHOOK, CLEAN)
KINDS = (*CloneKind, "narration")
STAGES = ("renderings", "prepare", "lora", "publish", "gate")


class TaskMeters:
    """What the children count, from zero on: Prometheus sees no increase where a series begins with its first event."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.tasks = Histogram(
            "carillon_task_seconds", "Celery tasks, by how they ended.", ["task", "state"],
            buckets=TASK_BUCKETS_S, registry=registry,
        )  # fmt: skip
        self._jobs = Histogram(
            "carillon_job_seconds", "Jobs from their making to their end: clone, polish, narration.", ["kind", "state"],
            buckets=JOB_BUCKETS_S, registry=registry,
        )  # fmt: skip
        self._retries = Counter(
            "carillon_job_retries_total", "Attempts at jobs after their first.", ["kind"], registry=registry
        )  # fmt: skip
        self.stages = Histogram(
            "carillon_job_stage_seconds", "Stages of clone jobs, by how they ended.", ["stage", "outcome"],
            buckets=JOB_BUCKETS_S, registry=registry,
        )  # fmt: skip
        self._gates = Counter(
            "carillon_gate_results_total", "Adapters measured before they were published.", ["result"],
            registry=registry,
        )  # fmt: skip
        self._gate_failures = Counter(
            "carillon_gate_failures_total", "Figures for which an adapter was refused.", ["figure"], registry=registry
        )  # fmt: skip
        for meter, *labels in (
            (self.tasks, TASKS, ("success", "failure")),
            (self._jobs, KINDS, FINAL_STATES),
            (self._retries, KINDS),
            (self.stages, STAGES, ("done", "failed")),
            (self._gates, ("passed", "failed")),
        ):
            for values in product(*labels):
                meter.labels(*values)

    def over(self, kind: str, state: str, *, created_at: datetime, finished_at: datetime, retries: int = 0) -> None:
        """A job has ended."""
        self._jobs.labels(kind, state).observe((finished_at - created_at).total_seconds())
        self._retries.labels(kind).inc(max(0, retries))

    def gated(self, gate: GateReport) -> None:
        """An adapter was measured."""
        self._gates.labels("passed" if gate.passed else "failed").inc()
        for figure in gate.figures:
            self._gate_failures.labels(figure.name).inc(figure.passed is False)


@cache
def meters() -> TaskMeters:
    """This process's."""
    return TaskMeters(CollectorRegistry())


@contextmanager
def answering(settings: MetricsSettings, survey: Callable[[], Survey | None]) -> Iterator[int | None]:
    """Answer `GET /metrics` while the context lasts, where a port is set; gives the port."""
    if settings.tasks_port is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="carillon-metrics-") as directory:
        os.environ[DIRECTORY] = directory
        registry = CollectorRegistry()
        MultiProcessCollector(registry, path=directory)
        registry.register(_Waiting(survey))
        server, thread = start_http_server(settings.tasks_port, settings.tasks_host, registry)
        log.info("metrics answered", extra={"host": settings.tasks_host, "port": server.server_port})
        try:
            yield server.server_port
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
            del os.environ[DIRECTORY]


class _Waiting(Collector):
    """What the last survey found; nothing before the first."""

    def __init__(self, survey: Callable[[], Survey | None]) -> None:
        self._survey = survey

    def collect(self) -> Iterator[GaugeMetricFamily]:
        jobs = GaugeMetricFamily("carillon_jobs", "Jobs that are not over, by state.", labels=["kind", "state"])
        waiting = GaugeMetricFamily("carillon_queue_jobs", "Work that no process holds.", labels=["queue"])
        oldest = GaugeMetricFamily(
            "carillon_queue_oldest_seconds", "How long the oldest of it has waited.", labels=["queue"]
        )
        messages = GaugeMetricFamily("carillon_queue_messages", "Messages in the broker.", labels=["queue"])
        if survey := self._survey():
            for labels, number in survey.states.items():
                jobs.add_metric(labels, number)
            for queue, found in survey.queues.items():
                waiting.add_metric([queue], found.jobs)
                oldest.add_metric([queue], found.oldest_s)
                messages.add_metric([queue], found.messages)
        yield from (jobs, waiting, oldest, messages)
