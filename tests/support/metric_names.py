"""Every series that the fleet's processes can have, by name with its labels, as their own code makes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.metrics import MetricWrapperBase

from app.api.metrics import Metrics
from app.fleet.worker import Worker, WorkerState
from app.platform.settings import NarrationSettings, Settings
from app.speech.voices import ModelCard
from tasks.metrics import TaskMeters, _Waiting
from tasks.survey import Queue, Survey
from tests.support.fakes import FakeEngine
from tests.support.random_codecs import TINY, random_codec
from workers.adapters import AdapterCache
from workers.decoder import Decoder
from workers.metrics import WorkerMetrics

SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum"), "gauge": ("",)}

SCRAPED = frozenset({"job", "instance"})
"""What Prometheus adds to every series."""

CARD = ModelCard(
    name="orpheus", stand_in=False, sample_rate_hz=24_000, voices=("wren",), languages=("en",), tokens_per_s=83
)

WORKER = Worker(
    id="w1",
    epoch=1,
    address="ws://w1",
    model=CARD,
    state=WorkerState.ACTIVE,
    capacity=4,
    max_voices=4,
    pace_s_per_s=0.5,
)


def series() -> dict[str, frozenset[str]]:
    """The labels of each."""
    found: dict[str, frozenset[str]] = {"up": SCRAPED}
    for family, labels in _families():
        for suffix in SUFFIXES.get(family.type, ()):
            buckets = {"le"} if suffix == "_bucket" else set()
            found[family.name + suffix] = frozenset(labels) | SCRAPED | buckets
    return found


def _families() -> Iterable[tuple[Metric, Iterable[str]]]:
    front_door = Metrics(
        lambda: [WORKER], Settings(narration=NarrationSettings(worker_usd_per_hour=1)), waiting=lambda: {"orpheus": 1}
    )
    tasks = CollectorRegistry()
    TaskMeters(tasks)
    tasks.register(_Waiting(lambda: Survey({("clone", "queued"): 1}, {"render": Queue()})))
    for registry in (front_door._registry, _worker(), tasks):
        for collector in list(registry._collector_to_names):
            if isinstance(collector, MetricWrapperBase):
                yield from ((family, collector._labelnames) for family in collector.describe())
            else:
                yield from ((family, _labels(family)) for family in collector.collect())


def _labels(family: Metric) -> Mapping[str, str]:
    return family.samples[0].labels if family.samples else {}


def _worker() -> CollectorRegistry:
    engine = FakeEngine()
    adapters = AdapterCache(
        engine, lambda *_: None, Path("nowhere"), max_resident=1, max_rank=16, patience_s=1, clock=lambda: 0.0
    )
    decoder = Decoder(random_codec(TINY), max_sessions=1)
    return WorkerMetrics(lambda: WORKER, engine, decoder, adapters)._registry
