"""What a worker reports to Prometheus, beside what vLLM already does. Every name it has is defined here, once.

What a part counts itself is read at each scrape; what sessions count as they speak goes into `SpeechMeters`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from app.fleet.worker import Worker, WorkerState
from app.platform.loop_lag import LAG_BUCKETS_S
from workers.adapters import AdapterCache
from workers.decoder import Decoder
from workers.engine import Engine

RTF_BUCKETS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.25, 1.5, 2, 4)


class SpeechMeters(Collector):
    """What the sessions of a worker count as they speak; what they count with each frame, as plain numbers, since they
    share one thread."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        registry = registry or CollectorRegistry()
        self.tokens = 0
        self.tokens_wasted = 0.0
        self.audio_s: defaultdict[str, float] = defaultdict(float)
        """By the session's pace."""
        registry.register(self)
        self.real_time_factor = Histogram(
            "carillon_worker_real_time_factor",
            "Engine's and codec's time for a second of a chunk's audio.",
            ["pace"],
            buckets=RTF_BUCKETS,
            registry=registry,
        )
        self.errors = Counter(
            "carillon_worker_session_errors_total",
            "Sessions refused or ended by an error.",
            ["code"],
            registry=registry,
        )
        self.loop_lag = Histogram(
            "carillon_loop_lag_seconds",
            "How late the event loop wakes a sleeper.",
            buckets=LAG_BUCKETS_S,
            registry=registry,
        )

    def collect(self) -> Iterator[Metric]:
        yield CounterMetricFamily("carillon_worker_tokens", "Tokens written for sessions.", value=self.tokens)
        wasted = "Tokens whose audio was not heard, because of a cancel."
        yield CounterMetricFamily("carillon_worker_tokens_wasted", wasted, value=self.tokens_wasted)
        audio = CounterMetricFamily("carillon_worker_audio_seconds", "Audio sent.", labels=["pace"])
        for pace, audio_s in self.audio_s.items():
            audio.add_metric([pace], audio_s)
        yield audio


class WorkerMetrics(Collector):
    """One worker's figures; `render` adds those that vLLM keeps in the process's own registry."""

    def __init__(
        self, describe: Callable[[], Worker], engine: Engine, decoder: Decoder, adapters: AdapterCache
    ) -> None:
        self._describe = describe
        self._engine = engine
        self._decoder = decoder
        self._adapters = adapters
        self._registry = CollectorRegistry(auto_describe=False)
        self.speech = SpeechMeters(self._registry)
        self._registry.register(self)

    def render(self) -> str:
        return (generate_latest(self._registry) + generate_latest(REGISTRY)).decode()

    def collect(self) -> Iterator[Metric]:
        worker, load = self._describe(), self._engine.load_now()
        yield from _of_adapters(worker, self._adapters)
        gauges = {
            "carillon_worker_places": ("Sessions it may hold.", worker.capacity),
            "carillon_worker_sessions": ("Sessions somebody waits for.", worker.inflight),
            "carillon_worker_background_sessions": ("Sessions in spare places.", worker.background),
            "carillon_worker_active": ("1 while it takes sessions.", float(worker.state is WorkerState.ACTIVE)),
            "carillon_worker_engine_running": ("Requests in the engine's batch.", load.running),
            "carillon_worker_engine_waiting": ("Requests the engine has not begun.", load.waiting),
            "carillon_worker_kv_cache_ratio": ("Share of the key-value cache in use.", load.kv_cache_usage),
        }
        if worker.pace_s_per_s is not None:
            gauges["carillon_worker_pace_ratio"] = (
                "Seconds of work for a second of speech with all places taken, as measured at the start.",
                worker.pace_s_per_s,
            )
        stats = self._decoder.stats
        counters = {
            "carillon_worker_decode_batches": ("Batches the codec has decoded.", stats.batches),
            "carillon_worker_decode_busy_seconds": ("Time the codec has worked.", stats.busy_s),
            "carillon_worker_provisional_packets": ("Packets ahead of the lookahead.", stats.provisional_packets),
            "carillon_worker_late_pushes": ("Packets decoded after their deadline.", stats.late_pushes),
        }
        for name, (help, value) in gauges.items():
            yield GaugeMetricFamily(name, help, value=value)
        for name, (help, value) in counters.items():
            yield CounterMetricFamily(name, help, value=value)


def _of_adapters(worker: Worker, adapters: AdapterCache) -> Iterator[Metric]:
    stats = adapters.stats
    gauges = {
        "carillon_worker_adapter_slots": ("Distinct adapters it may speak with at once.", worker.max_voices),
        "carillon_worker_adapters_active": (
            "Adapters that sessions speak with.",
            len(worker.active_adapters | worker.background_adapters),
        ),
        "carillon_worker_adapters_ready": ("Adapters the engine holds.", len(worker.ready_adapters)),
    }
    counters = {
        "carillon_worker_adapter_hits": ("Uses of an adapter that was loaded.", stats.hits),
        "carillon_worker_adapter_stalls": ("Uses that had to wait for theirs.", stats.stalls),
        "carillon_worker_adapter_stall_seconds": ("How long they waited.", stats.stall_s),
        "carillon_worker_adapter_loads": ("Adapters loaded.", stats.loads),
        "carillon_worker_adapter_evictions": ("Adapters that made room for others.", stats.evictions),
        "carillon_worker_adapter_failures": ("Adapters that could not be loaded or removed.", stats.failures),
    }
    for name, (help, value) in gauges.items():
        yield GaugeMetricFamily(name, help, value=value)
    for name, (help, value) in counters.items():
        yield CounterMetricFamily(name, help, value=value)
