"""What a worker reports to Prometheus, beside what vLLM already does: sessions, the engine's load, the codec.

Everything is read at each scrape; nothing is counted twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from app.fleet.worker import Worker
from workers.decoder import Decoder
from workers.engine import Engine


class WorkerMetrics(Collector):
    """One worker's figures; `render` adds those that vLLM keeps in the process's own registry."""

    def __init__(self, describe: Callable[[], Worker], engine: Engine, decoder: Decoder) -> None:
        self._describe = describe
        self._engine = engine
        self._decoder = decoder
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def render(self) -> str:
        return (generate_latest(self._registry) + generate_latest(REGISTRY)).decode()

    def collect(self) -> Iterator[Metric]:
        worker, load, stats = self._describe(), self._engine.load_now(), self._decoder.stats
        gauges = {
            "carillon_worker_sessions": ("Sessions somebody waits for.", worker.inflight),
            "carillon_worker_background_sessions": ("Sessions in spare places.", worker.background),
            "carillon_worker_engine_running": ("Requests in the engine's batch.", load.running),
            "carillon_worker_engine_waiting": ("Requests the engine has not begun.", load.waiting),
            "carillon_worker_kv_cache_ratio": ("Share of the key-value cache in use.", load.kv_cache_usage),
        }
        counters = {
            "carillon_worker_decode_batches": ("Batches the codec has decoded.", stats.batches),
            "carillon_worker_decode_busy_seconds": ("Time the codec has worked.", stats.busy_s),
            "carillon_worker_provisional_packets": (
                "Packets ahead of the lookahead.",
                stats.provisional_packets,
            ),
            "carillon_worker_late_pushes": ("Packets decoded after their deadline.", stats.late_pushes),
        }
        for name, (help, value) in gauges.items():
            yield GaugeMetricFamily(name, help, value=value)
        for name, (help, value) in counters.items():
            yield CounterMetricFamily(name, help, value=value)
