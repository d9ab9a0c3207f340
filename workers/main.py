"""A worker process, put together: one engine, one decoder, one server, one heartbeat.

The engine's death ends the process with its reason; whoever supervises it starts another, under a new epoch. SIGTERM
and SIGINT drain: no new session, those that run may finish.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import socket
import time
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

from app.core.errors import ConfigurationError, DeadlineExceeded, EngineFailed
from app.core.orpheus import read_layout
from app.infra.checkpoints import locate
from app.infra.registry import Registry, open_redis
from app.infra.settings import Settings
from app.infra.storage import ObjectStore
from workers.adapters import AdapterCache
from workers.decoder import Decoder
from workers.engine import VllmEngine
from workers.heartbeat import Heartbeat
from workers.server import WorkerServer

log = logging.getLogger(__name__)

_STORE_TIMEOUT_S = 5.0
"""Of one answer of the object store. The adapter cache asks again itself, so boto3 need not."""

_PATIENCE = 0.8
"""What part of `session.ready_timeout_s` a store may be away; the rest is for fetching and loading afterwards."""


def run(settings: Settings) -> None:
    """Serve until told to stop. Raises ConfigurationError or EngineFailed when that cannot be."""
    device = _device(settings.device)
    if device == "cpu":
        # Before torch starts its threads: spinning on shared cores slows the codec forty-fold (measured).
        os.environ.update(OMP_WAIT_POLICY="PASSIVE", OMP_NUM_THREADS="1")
    asyncio.run(_serve(settings, device))


async def _serve(settings: Settings, device: str) -> None:
    model_dir = locate(settings.model, variable="CARILLON_MODEL")
    codec_dir = locate(settings.codec, variable="CARILLON_CODEC")
    layout = read_layout(model_dir, codec_dir)
    worker_id = settings.worker_id or f"{socket.gethostname()}-{os.getpid()}"
    engine = VllmEngine(model_dir, layout, settings.engine, capacity=settings.capacity, device=device)
    cache = settings.data_dir / "adapters" / worker_id
    shutil.rmtree(cache, ignore_errors=True)  # what an earlier start left, nobody would ever evict
    store = ObjectStore(settings.store, timeout_s=_STORE_TIMEOUT_S, attempts=1)
    adapters = AdapterCache(
        engine,
        store.fetch,
        cache,
        max_resident=settings.engine.max_cpu_loras,
        max_rank=settings.engine.max_lora_rank,
        patience_s=settings.session.ready_timeout_s * _PATIENCE,
        clock=time.monotonic,
    )
    redis = open_redis(settings)
    registry = Registry(redis, settings)
    try:
        await engine.start()
        # Not before: a worker that is still loading has nobody to say goodbye to, and ends at the signal itself.
        stop = _stop_signal()
        async with Decoder(Path(codec_dir), device=device, max_sessions=settings.capacity) as decoder:
            server = WorkerServer(
                settings,
                worker_id=worker_id,
                epoch=await registry.join(worker_id),
                engine=engine,
                decoder=decoder,
                adapters=adapters,
                clock=time.monotonic,
            )
            await server.listen()
            log.info("worker ready", extra={"worker": worker_id, "address": server.address, "device": device})
            heartbeat = Heartbeat(
                registry,
                server.describe,
                lambda: server.sessions,
                adapters.retire,
                interval_s=settings.heartbeat_s,
            )
            await _until_stopped(settings, server, registry, heartbeat, stop, engine.died(), decoder.died())
    finally:
        await adapters.aclose()
        await engine.aclose()
        await redis.aclose()
        store.close()


async def _until_stopped(
    settings: Settings,
    server: WorkerServer,
    registry: Registry,
    heartbeat: Heartbeat,
    stop: asyncio.Event,
    *deaths: Coroutine[Any, Any, str],
) -> None:
    """Serve until `stop`, then drain. Raises EngineFailed with what any of `deaths` returns, if one comes first."""
    beating = asyncio.create_task(heartbeat.run(), name="heartbeat")
    dying = [asyncio.create_task(death) for death in deaths]
    stopping = asyncio.create_task(stop.wait(), name="stop")
    watched = [beating, stopping, *dying]
    try:
        await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
        if beating.done():
            await beating
        for death in dying:
            if death.done():
                raise EngineFailed(f"{death.result()}; this worker ends and is started anew")
        drain = asyncio.create_task(server.drain(settings.drain_timeout_s))
        heartbeat.hurry()
        await drain
    finally:
        for task in watched:
            task.cancel()
        await asyncio.gather(*watched, return_exceptions=True)
        with suppress(DeadlineExceeded):  # the record then expires
            await registry.leave(server.describe().id, server.describe().epoch)


def _stop_signal() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


def _device(setting: str) -> str:
    import torch

    available = torch.cuda.is_available()
    if setting == "cuda" and not available:
        raise ConfigurationError("CARILLON_DEVICE=cuda, but torch sees no GPU; `carillon doctor` says why")
    return "cuda" if available and setting != "cpu" else "cpu"
