"""The front door's Prometheus metrics, in a registry of their own. Every name it has is defined here, once.

`edge` is the dialect: openai, sessions, … What workers and tasks report of themselves is in `workers.metrics` and
`tasks.metrics`.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from prometheus_client import GC_COLLECTOR, PROCESS_COLLECTOR, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client import generate_latest as exposition
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from app.errors import CarillonError, QuotaExceeded, RateLimited
from app.fleet.worker import Worker
from app.platform.loop_lag import LAG_BUCKETS_S
from app.platform.settings import Settings
from app.speech.latency import Ledger

LEDGER_PARTS = (
    "queue", "route", "text", "prefill", "first_frames", "decode", "head_silence", "first_audio", "turn_text", "turn",
    "total",
)  # fmt: skip

LATENCY_BUCKETS_S = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.25, 0.35, 0.5, 0.75, 1, 1.5, 2, 5, 10, 30,
)  # fmt: skip
"""Fine around the quarter of a second in which first audio is promised."""


@dataclass(slots=True)
class SessionCount:
    """How one session ends, as far as it is known."""

    outcome: str = "gone"

    def done(self) -> None:
        """Everything was delivered; a disconnect from now on is no loss."""
        self.outcome = "done"


@dataclass(frozen=True, slots=True)
class ProjectUse:
    """What the sessions of one project use."""

    characters: Counter
    audio_s: Counter


class Metrics:
    """Counts and times what passes the front door."""

    def __init__(
        self,
        workers: Callable[[], Iterable[Worker]],
        settings: Settings,
        waiting: Callable[[], Mapping[str, int]] = dict,
        connections: Callable[[], int] = int,
    ) -> None:
        """`waiting` has the starts that wait for room, by model; `connections` how many are open."""
        self._registry = registry = CollectorRegistry()
        self._in_the_money_s = settings.metrics.in_the_money_s
        self._open = Gauge("carillon_sessions_open", "Sessions being spoken.", ["edge"], registry=registry)
        self._ended = Counter(
            "carillon_sessions_total", "Sessions by their end: done, gone, or an error's code.", ["edge", "outcome"],
            registry=registry,
        )  # fmt: skip
        self._audio = Counter("carillon_audio_seconds_total", "Audio made.", ["edge"], registry=registry)
        self._tokens = Counter("carillon_tokens_total", "Tokens of that audio.", ["edge"], registry=registry)
        self._moves = Counter("carillon_session_moves_total", "Moves to another worker.", ["edge"], registry=registry)
        self._latency = Histogram(
            "carillon_latency_seconds", "The latency ledger, part by part.", ["edge", "part"],
            buckets=LATENCY_BUCKETS_S, registry=registry,
        )  # fmt: skip
        self._audible = Histogram(
            "carillon_audible_ttfa_seconds", "From the first text to the first audible sound: first audio and the "
            "silence at its head.", ["edge"], buckets=LATENCY_BUCKETS_S, registry=registry,
        )  # fmt: skip
        self._money = Counter(
            "carillon_first_sounds_total", "First audible sounds, in time (CARILLON_METRICS__IN_THE_MONEY_S) or not.",
            ["edge", "in_the_money"], registry=registry,
        )  # fmt: skip
        self._underruns = Counter(
            "carillon_underruns_total", "Gaps that a listener with 100 ms in hand would hear.", ["edge"],
            registry=registry,
        )  # fmt: skip
        self._underrun_s = Counter(
            "carillon_underrun_seconds_total", "Their length.", ["edge"], registry=registry
        )  # fmt: skip
        self._refused = Counter(
            "carillon_refused_total", "Requests and messages refused, by the error's code; limits hit among them.",
            ["code"], registry=registry,
        )  # fmt: skip
        self._project_sessions = Gauge(
            "carillon_project_sessions_open", "Sessions being spoken, by whose they are.", ["project"],
            registry=registry,
        )  # fmt: skip
        self._project_characters = Counter(
            "carillon_project_characters_total", "Characters of text taken.", ["project"], registry=registry
        )
        self._project_audio = Counter(
            "carillon_project_audio_seconds_total", "Audio made.", ["project"], registry=registry
        )
        self._project_limited = Counter(
            "carillon_project_limited_total", "Sessions and texts refused for a limit of theirs.", ["project", "code"],
            registry=registry,
        )  # fmt: skip
        self._loop_lag = Histogram(
            "carillon_loop_lag_seconds", "How late the event loop wakes a sleeper.", buckets=LAG_BUCKETS_S,
            registry=registry,
        )  # fmt: skip
        Gauge("carillon_connections_open", "Connections of clients.", registry=registry).set_function(connections)
        registry.register(_FleetCollector(workers, waiting, settings.narration.worker_usd_per_hour))
        registry.register(PROCESS_COLLECTOR)
        registry.register(GC_COLLECTOR)

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

    @contextmanager
    def of_project(self, project_id: str) -> Iterator[ProjectUse]:
        """Count a session, and refusals for limits, by project."""
        use = ProjectUse(self._project_characters.labels(project_id), self._project_audio.labels(project_id))
        is_open = self._project_sessions.labels(project_id)
        is_open.inc()
        try:
            yield use
        except (RateLimited, QuotaExceeded) as error:
            self._project_limited.labels(project_id, error.code).inc()
            raise
        finally:
            is_open.dec()

    def account(self, edge: str, ledger: Ledger) -> None:
        """Enter one utterance's ledger; parts that were not measured are left out."""
        self._audio.labels(edge).inc(ledger.audio_s)
        self._tokens.labels(edge).inc(ledger.tokens)
        self._moves.labels(edge).inc(ledger.moves)
        self._underruns.labels(edge).inc(ledger.underruns)
        self._underrun_s.labels(edge).inc(ledger.underrun_ms / 1000)
        for part in LEDGER_PARTS:
            milliseconds = getattr(ledger, f"{part}_ms")
            if milliseconds is not None:
                self._latency.labels(edge, part).observe(milliseconds / 1000)
        if ledger.first_audio_ms is not None and ledger.head_silence_ms is not None:
            audible_s = (ledger.first_audio_ms + ledger.head_silence_ms) / 1000
            self._audible.labels(edge).observe(audible_s)
            in_time = audible_s <= self._in_the_money_s
            # Both are there from the first on: where every one is late, the share in time is nothing, not unknown.
            self._money.labels(edge, "yes").inc(in_time)
            self._money.labels(edge, "no").inc(not in_time)

    def refused(self, error: CarillonError) -> None:
        """Count a request or message that was answered with `error`."""
        self._refused.labels(error.code).inc()

    def lagged(self, seconds: float) -> None:
        """Note how late the event loop was."""
        self._loop_lag.observe(seconds)

    def page(self) -> bytes:
        return exposition(self._registry)


class _FleetCollector(Collector):
    """The fleet as this front door sees it, read when Prometheus asks. Every front door reports the same workers."""

    def __init__(
        self,
        workers: Callable[[], Iterable[Worker]],
        waiting: Callable[[], Mapping[str, int]],
        worker_usd_per_hour: float | None,
    ) -> None:
        self._workers = workers
        self._waiting = waiting
        self._worker_usd_per_hour = worker_usd_per_hour

    def collect(self) -> Iterator[GaugeMetricFamily]:
        workers = list(self._workers())
        states = Tally((worker.model.name, worker.state.value) for worker in workers)
        count = GaugeMetricFamily("carillon_fleet_workers", "Workers by model and state.", labels=["model", "state"])
        for labels, number in states.items():
            count.add_metric(labels, number)
        of_worker = ["model", "worker"]
        places = GaugeMetricFamily("carillon_fleet_places", "Sessions a worker may hold.", labels=of_worker)
        leases = GaugeMetricFamily("carillon_fleet_leases", "Sessions a worker holds.", labels=of_worker)
        spare = GaugeMetricFamily(
            "carillon_fleet_background_leases", "Sessions in a worker's spare places.", labels=of_worker
        )
        for worker in workers:
            labels = [worker.model.name, worker.id]
            places.add_metric(labels, worker.capacity)
            leases.add_metric(labels, worker.inflight)
            spare.add_metric(labels, worker.background)
        waiting = GaugeMetricFamily("carillon_starts_waiting", "Sessions that wait for a place here.", labels=["model"])
        for model in {worker.model.name for worker in workers} | set(self._waiting()):
            waiting.add_metric([model], self._waiting().get(model, 0))
        yield from (count, places, leases, spare, waiting)
        if self._worker_usd_per_hour is not None:
            usd = GaugeMetricFamily("carillon_fleet_usd_per_hour", "What the workers cost, from the price of one.")
            usd.add_metric([], self._worker_usd_per_hour * len(workers))
            yield usd
