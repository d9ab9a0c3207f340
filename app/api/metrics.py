"""The front door's Prometheus metrics, in a registry of their own."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from app.errors import CarillonError
from app.fleet.worker import Worker
from app.speech.latency import Ledger

LEDGER_PARTS = (
    "queue", "route", "text", "prefill", "first_frames", "decode", "head_silence", "first_audio", "turn_text", "turn",
    "total",
)  # fmt: skip

LATENCY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.25, 0.35, 0.5, 0.75, 1, 2, 5, 10, 30)
"""Fine around the quarter of a second in which first audio is promised."""


@dataclass(slots=True)
class SessionCount:
    """How one session ends, as far as it is known."""

    outcome: str = "gone"

    def done(self) -> None:
        """All that was asked for has been said; leaving from now on is no loss."""
        self.outcome = "done"


class Metrics:
    """Counts and times what passes the front door; `edge` is the dialect: openai, sessions, …"""

    def __init__(self, workers: Callable[[], Iterable[Worker]]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_FleetCollector(workers))
        self._open = Gauge("carillon_sessions_open", "Sessions being spoken.", ["edge"], registry=self._registry)
        self._ended = Counter(
            "carillon_sessions_total", "Sessions by their end: done, gone, or an error's code.", ["edge", "outcome"],
            registry=self._registry,
        )  # fmt: skip
        self._audio = Counter("carillon_audio_seconds_total", "Audio made.", ["edge"], registry=self._registry)
        self._latency = Histogram(
            "carillon_latency_seconds", "The latency ledger, part by part.", ["edge", "part"],
            buckets=LATENCY_BUCKETS_S, registry=self._registry,
        )  # fmt: skip

    @contextmanager
    def session(self, edge: str) -> Iterator[SessionCount]:
        """Count a session while it is open, and how it ends: done, by an error's code, or because the client left."""
        count = SessionCount()
        self._open.labels(edge).inc()
        try:
            yield count
        except CarillonError as error:
            count.outcome = error.code
            raise
        finally:
            self._open.labels(edge).dec()
            self._ended.labels(edge, count.outcome).inc()

    def account(self, edge: str, ledger: Ledger) -> None:
        """Enter one utterance's ledger; parts that were not measured are left out."""
        self._audio.labels(edge).inc(ledger.audio_s)
        for part in LEDGER_PARTS:
            milliseconds = getattr(ledger, f"{part}_ms")
            if milliseconds is not None:
                self._latency.labels(edge, part).observe(milliseconds / 1000)

    def page(self) -> bytes:
        return generate_latest(self._registry)


class _FleetCollector(Collector):
    """The fleet as this front door sees it, read when Prometheus asks."""

    def __init__(self, workers: Callable[[], Iterable[Worker]]) -> None:
        self._workers = workers

    def collect(self) -> Iterator[GaugeMetricFamily]:
        workers = list(self._workers())
        states = Tally((worker.model.name, worker.state.value) for worker in workers)
        count = GaugeMetricFamily("carillon_workers", "Workers by model and state.", labels=["model", "state"])
        for labels, number in states.items():
            count.add_metric(labels, number)
        places = GaugeMetricFamily("carillon_worker_places", "Sessions a worker may hold.", labels=["model", "worker"])
        held = GaugeMetricFamily("carillon_worker_sessions", "Sessions a worker holds.", labels=["model", "worker"])
        spare = GaugeMetricFamily(
            "carillon_worker_background_sessions", "Sessions in spare places.", labels=["model", "worker"]
        )
        for worker in workers:
            places.add_metric([worker.model.name, worker.id], worker.capacity)
            held.add_metric([worker.model.name, worker.id], worker.inflight)
            spare.add_metric([worker.model.name, worker.id], worker.background)
        yield from (count, places, held, spare)
