"""Workers and voices for tests of the registry, and what they look up in it."""

from __future__ import annotations

from redis.asyncio import Redis

from app.fleet.registry import ROOT, Registry
from app.fleet.worker import Worker
from app.speech.voices import AdapterVersion, ModelCard, Voice

CARD = ModelCard(
    name="standin", stand_in=True, languages=("en",), voices=("slt",), sample_rate_hz=24_000, tokens_per_s=82.03
)
BUILT_IN = Voice(id="slt", name="slt", model="standin")


def clone(id: str, version: int = 1, model: str = "standin") -> Voice:
    adapter = AdapterVersion(voice_id=id, version=version, lora_id=1, uri="file:///a/", sha256={}, rank=16)
    return Voice(id=id, name=id, model=model, adapter=adapter)


async def join(registry: Registry, id: str = "w1", **fields: object) -> Worker:
    values = {"address": "ws://x", "model": CARD, "state": "active", "capacity": 2, "max_voices": 2, **fields}
    worker = Worker.model_validate({"id": id, "epoch": await registry.join(id), **values})
    assert await registry.beat(worker, [])
    return worker


async def only(registry: Registry) -> Worker:
    (worker,) = await registry.snapshot()
    return worker


async def expire(redis: Redis, lease: str, worker_id: str = "w1") -> None:
    assert await redis.zadd(f"{ROOT}leases:{worker_id}", {lease: 1}, xx=True, ch=True)
