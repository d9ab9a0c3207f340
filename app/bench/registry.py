"""`carillon bench registry`: CPU cost of a fleet in Redis and in a front door that reads it.

The Valkey, the script and the client are the real ones; the workers are records with leases, and there is no speech.
Costs of Redis are the CPU time of its process, taken from itself, so that it does not matter how fast this client is.
"""

from __future__ import annotations

import asyncio
import secrets
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import TextIO

from pydantic import SecretStr
from redis.asyncio import Redis

from app.errors import ConfigurationError
from app.fleet.registry import LeaseRecord, Registry, open_redis
from app.fleet.worker import Worker, WorkerState
from app.local.embedded import free_port, redis_url, valkey
from app.local.supervisor import Supervisor
from app.platform.settings import Settings
from app.simulation.traffic import adapter_of, voice_of
from app.speech.voices import ModelCard, Voice

CAPACITY, SESSIONS, CACHED = 16, 11, 64
"""Of each worker: places, live sessions, adapters at hand; as `carillon simulate` has it at 70 % load."""
CHANGED = 20
"""Since the last snapshot a session has begun at one worker in so many, and one has ended at as many others: of 1,000
workers, with sessions of 240 s, 46 begin and 46 end in a second."""
BEATS, CLAIMS, SNAPSHOTS = 500, 500, 20
CARD = ModelCard(
    name="simulated", stand_in=True, languages=("en",), voices=(), sample_rate_hz=24_000, tokens_per_s=82.03
)


@dataclass(frozen=True, slots=True)
class RegistryCost:
    """Of one fleet; CPU times."""

    workers: int
    beat_us: float
    claim_us: float
    """And the release at the session's end."""
    look_ms: float
    """A snapshot of what has changed in the fleet, in Redis."""
    look_bytes: int
    door_ms: float
    """The same in the front door that reads it."""
    doors: float
    """How many of them one Redis carries beside the heartbeats and starts of this fleet."""


def run(*, workers: Sequence[int], session_s: float, out: TextIO) -> list[RegistryCost]:
    """Measure fleets of so many `workers`, each with sessions of a mean `session_s`; a row of the table for each."""
    out.write(
        f"{'workers':>8}{'beat µs':>10}{'claim µs':>10}{'look ms':>10}{'look KB':>10}{'door ms':>10}{'doors':>8}\n"
    )
    costs: list[RegistryCost] = []
    for count in workers:
        cost = asyncio.run(_measured(count, session_s))
        costs.append(cost)
        out.write(
            f"{count:>8}{cost.beat_us:>10.0f}{cost.claim_us:>10.0f}{cost.look_ms:>10.2f}{cost.look_bytes / 1e3:>10.0f}"
            f"{cost.door_ms:>10.2f}{cost.doors:>8.0f}\n"
        )
        out.flush()
    return costs


async def _measured(count: int, session_s: float) -> RegistryCost:
    with tempfile.TemporaryDirectory(prefix="carillon-bench-") as name:
        port, password = free_port(), SecretStr(secrets.token_hex(16))
        settings = Settings(redis_url=SecretStr(redis_url(port, password)), lease_ttl_s=3600, worker_ttl_s=3600)
        async with Supervisor(Path(name) / "logs", report=lambda _: None) as supervisor:
            await supervisor.start(valkey(Path(name) / "valkey", port=port, password=password))
            async with open_redis(settings) as redis:
                return await _cost(redis, settings, count, session_s)


async def _cost(redis: Redis, settings: Settings, count: int, session_s: float) -> RegistryCost:
    registry = Registry(redis, settings)
    workers = [await _join(registry, number) for number in range(count)]
    beat_s = await _cpu_s(redis, [_beat(registry, worker) for worker in islice(cycle(workers), BEATS)])
    claim_s = await _cpu_s(
        redis, [_claim_and_release(registry, worker, i) for i, worker in enumerate(islice(cycle(workers), CLAIMS))]
    )
    await registry.snapshot()
    snapshot_s = door_s = 0.0
    for turn in range(SNAPSHOTS):
        await _change(registry, workers, turn)
        redis_before_s, door_before_s = await _redis_cpu_s(redis), time.process_time()
        await registry.snapshot()
        door_s += time.process_time() - door_before_s
        snapshot_s += await _redis_cpu_s(redis) - redis_before_s
    await _change(registry, workers, SNAPSHOTS)
    before, own = await _sent_bytes(redis), await _sent_bytes(redis)
    await registry.snapshot()
    after = await _sent_bytes(redis)
    usual = Settings()
    busy = count * beat_s / usual.heartbeat_s + count * SESSIONS / session_s * claim_s
    return RegistryCost(
        workers=count,
        beat_us=beat_s * 1e6,
        claim_us=claim_s * 1e6,
        look_ms=snapshot_s / SNAPSHOTS * 1e3,
        look_bytes=(after - own) - (own - before),
        door_ms=door_s / SNAPSHOTS * 1e3,
        doors=max(0.0, 1 - busy) * usual.fleet_refresh_s * SNAPSHOTS / snapshot_s,
    )


async def _join(registry: Registry, number: int) -> Worker:
    """A worker with its sessions, every one with a voice of its own, and with as many adapters as it keeps at hand."""
    id = f"worker-{number}"
    worker = Worker(
        id=id,
        epoch=await registry.join(id),
        address=f"ws://10.0.{number // 250}.{number % 250}:9000",
        model=CARD,
        state=WorkerState.ACTIVE,
        capacity=CAPACITY,
        max_voices=CAPACITY,
        ready_adapters=frozenset(adapter_of(voice_of(number * CACHED + i)) for i in range(CACHED)),
    )
    await _beat(registry, worker)()
    for i in range(SESSIONS):
        await _take(registry, worker, f"{id}-{i}", voice_of(number * CACHED + i))
    return worker


async def _take(registry: Registry, worker: Worker, session: str, voice: Voice) -> None:
    if not await registry.claim(worker, session, voice):
        raise ConfigurationError(f"{worker.id} has lost a place of its own; does somebody else write into this Redis?")


async def _change(registry: Registry, workers: Sequence[Worker], turn: int) -> None:
    """A session begins at one worker in so many, and the one that had begun before at another ends."""
    for worker in workers[turn % CHANGED :: CHANGED]:
        await _take(registry, worker, f"{worker.id}-more", voice_of(turn))
    for worker in workers[(turn - 1) % CHANGED :: CHANGED] if turn else ():
        await registry.release(worker.id, f"{worker.id}-more")


Call = Callable[[], Awaitable[object]]


def _beat(registry: Registry, worker: Worker) -> Call:
    first = int(worker.id.removeprefix("worker-")) * CACHED
    held = [LeaseRecord(f"{worker.id}-{i}", adapter_of(voice_of(first + i))) for i in range(SESSIONS)]
    return lambda: registry.beat(worker, held)


def _claim_and_release(registry: Registry, worker: Worker, number: int) -> Call:
    async def call() -> None:
        await _take(registry, worker, f"start-{number}", voice_of(number))
        await registry.release(worker.id, f"start-{number}")

    return call


async def _cpu_s(redis: Redis, calls: Sequence[Call]) -> float:
    """What one of the `calls` takes of Redis."""
    before_s = await _redis_cpu_s(redis)
    for call in calls:
        await call()
    return (await _redis_cpu_s(redis) - before_s) / len(calls)


async def _redis_cpu_s(redis: Redis) -> float:
    found = await redis.info("cpu")
    return found["used_cpu_user_main_thread"] + found["used_cpu_sys_main_thread"]


async def _sent_bytes(redis: Redis) -> int:
    return (await redis.info("stats"))["total_net_output_bytes"]
