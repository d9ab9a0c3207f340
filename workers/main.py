"""A worker process, put together: one engine, one decoder, one server, one heartbeat.

It warms up before it takes sessions. The engine's death ends the process with its reason; its supervisor starts
another, under a new epoch. SIGTERM, SIGINT and an order from the registry drain: no new session, those that run may
finish, or go on elsewhere; the process then ends with status 0.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import shutil
import signal
import socket
import time
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from app.errors import ConfigurationError, DeadlineExceeded, EngineFailed
from app.fleet.registry import LeaseRecord, Registry, open_redis
from app.fleet.worker import Worker, WorkerState
from app.platform.model_files import fetch, fingerprint
from app.platform.object_store import ObjectStore
from app.platform.profiles import EngineProfile
from app.platform.settings import Settings
from app.platform.tracing import configure_tracing
from app.speech.token_layout import read_layout
from app.speech.voices import ModelCard
from workers.adapters import AdapterCache
from workers.decoder import Decoder
from workers.heartbeat import Heartbeat
from workers.pace import sustainable
from workers.scratch import own_temporary_directory
from workers.seat import card_memory, own_card, seat
from workers.server import WorkerServer
from workers.vllm_engine import VllmEngine
from workers.warm_up import warm_up

log = logging.getLogger(__name__)

_Result = TypeVar("_Result")

_STORE_TIMEOUT_S = 5.0
"""Of one answer of the object store. The adapter cache retries itself, so boto3 need not."""

_PATIENCE = 0.8
"""What part of `session.ready_timeout_s` a store may be away; the rest is for fetching and loading afterwards."""


def run(settings: Settings) -> None:
    """Serve until stopped. Raises ConfigurationError or EngineFailed when that cannot be."""
    configure_tracing(settings, "worker")
    card = own_card(settings)  # held for as long as this process lives
    device = _device(settings.device)
    with card, own_temporary_directory():
        run_loop(_serve(settings, device))


def run_loop(body: Coroutine[Any, Any, None]) -> None:
    """On the event loop of a worker."""
    import uvloop

    uvloop.run(body)


class Announced:
    """What the fleet sees of this worker: which part of its start it is in, and then what its server reports."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.server: WorkerServer | None = None

    def begin(self, part: str) -> None:
        log.info("worker starts", extra={"worker": self.worker.id, "part": part})
        self.worker = self.worker.model_copy(update={"part": part})

    def describe(self) -> Worker:
        return self.server.describe() if self.server else self.worker

    def leases(self) -> tuple[LeaseRecord, ...]:
        return self.server.leases if self.server else ()


async def _serve(settings: Settings, device: str) -> None:
    """Start part by part, serve until stopped, and give back what was taken, the last first."""
    model_dir = await fetch(settings.model, variable="CARILLON_MODEL")
    codec_dir = await fetch(settings.codec, variable="CARILLON_CODEC")
    layout = read_layout(model_dir, codec_dir, settings.speech)
    card = ModelCard.of(layout, checkpoint=fingerprint(model_dir, codec_dir, codec_noise=settings.codec_noise))
    worker_id = settings.worker_id or f"{socket.gethostname()}-{os.getpid()}"
    profile, gpu = seat(settings, device, model_dir)
    stop: asyncio.Future[float] = asyncio.get_running_loop().create_future()
    async with AsyncExitStack() as stack:
        memory = stack.enter_context(card_memory(settings, gpu, profile, worker_id))
        redis = open_redis(settings)
        stack.push_async_callback(redis.aclose)
        registry = Registry(redis, settings)
        announced = Announced(await _joined(registry, worker_id, card, profile))
        engine = VllmEngine(
            model_dir, layout, settings.engine, profile=profile, device=device, progress=announced.begin
        )
        stack.push_async_callback(engine.aclose)
        adapters = await stack.enter_async_context(_adapter_cache(settings, engine, profile, worker_id))
        heartbeat = Heartbeat(
            registry,
            announced.describe,
            announced.leases,
            adapters.retire,
            interval_s=settings.heartbeat_s,
            drain=lambda deadline_s: _stop_within(stop, deadline_s),
        )
        beating = await stack.enter_async_context(beating_with(heartbeat, registry, announced.worker))
        for pause_s in memory:
            await asyncio.sleep(pause_s)
        await _unless(beating, engine.start())
        # Not before: a worker that is still loading has no session to drain, and ends at the signal itself.
        _stop_at_signal(stop, settings.drain_timeout_s)
        decoder = await stack.enter_async_context(
            Decoder(Path(codec_dir), device=device, max_sessions=profile.capacity, noise=settings.codec_noise)
        )
        announced.begin("measuring its pace")
        profile, pace = await _unless(beating, _measured(settings, device, profile, engine, decoder))
        server = WorkerServer(
            settings,
            worker_id=worker_id,
            epoch=announced.worker.epoch,
            profile=profile,
            engine=engine,
            decoder=decoder,
            adapters=adapters,
            clock=time.monotonic,
            checkpoint=card.checkpoint,
            pace=pace,
        )
        await server.listen(WorkerState.STARTING)
        announced.server = server
        deaths = (engine.died(), decoder.died())

        async def join() -> None:
            most, timeout_s = settings.warm_up_voices, settings.warm_up_timeout_s
            most = profile.max_cpu_loras // 2 if most is None else most
            await warm_up(server.describe(), registry, adapters, most=most, timeout_s=timeout_s)
            gc.collect()
            gc.freeze()  # a collection would walk all that was imported, while sessions wait
            server.state = WorkerState.ACTIVE
            heartbeat.hurry()
            log.info("worker ready", extra={"worker": worker_id, "address": server.address, "device": device})

        await _until_stopped(settings, server, heartbeat, beating, join=join(), stop=stop, deaths=deaths)


async def _joined(registry: Registry, worker_id: str, card: ModelCard, profile: EngineProfile) -> Worker:
    """The worker as the fleet sees it while it starts."""
    return Worker(
        id=worker_id,
        epoch=await registry.join(worker_id),
        address="",
        model=card,
        state=WorkerState.STARTING,
        capacity=profile.capacity,
        max_voices=profile.max_loras,
    )


@asynccontextmanager
async def _adapter_cache(
    settings: Settings, engine: VllmEngine, profile: EngineProfile, worker_id: str
) -> AsyncIterator[AdapterCache]:
    directory = settings.data_dir / "adapters" / worker_id
    shutil.rmtree(directory, ignore_errors=True)  # what an earlier start left would never be evicted
    store = ObjectStore(settings.store, timeout_s=_STORE_TIMEOUT_S, attempts=1)
    adapters = AdapterCache(
        engine,
        store.fetch,
        directory,
        max_resident=profile.max_cpu_loras,
        max_rank=settings.engine.max_lora_rank,
        patience_s=settings.session.ready_timeout_s * _PATIENCE,
        clock=time.monotonic,
    )
    try:
        yield adapters
    finally:
        await adapters.aclose()
        store.close()


@asynccontextmanager
async def beating_with(heartbeat: Heartbeat, registry: Registry, worker: Worker) -> AsyncIterator[asyncio.Task[None]]:
    """The heartbeat at work, while the context lasts; the worker then leaves the registry."""
    beating = asyncio.create_task(heartbeat.run(), name="heartbeat")
    try:
        yield beating
    finally:
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)
        with suppress(DeadlineExceeded):  # the record then expires
            await registry.leave(worker.id, worker.epoch)


async def _unless(beating: asyncio.Task[None], work: Coroutine[Any, Any, _Result]) -> _Result:
    """The result of `work`, unless the heartbeat ends before, which it does only for a reason to end."""
    working = asyncio.ensure_future(work)
    try:
        await asyncio.wait([working, beating], return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            await beating
        return await working
    finally:
        working.cancel()


async def _measured(
    settings: Settings, device: str, profile: EngineProfile, engine: VllmEngine, decoder: Decoder
) -> tuple[EngineProfile, float | None]:
    """The profile with no more sessions than this processor serves in real time, and its pace with them.

    A capacity that is set stands, and its cost is logged. A card's is not measured here.
    """
    if device != "cpu":
        return profile, None
    chosen = "capacity" in settings.model_fields_set
    pace = await sustainable(engine, decoder, most=profile.capacity, least=profile.capacity if chosen else 1)
    facts = {"sessions": pace.sessions, "s_per_s": round(pace.s_per_s, 3), "wanted": profile.capacity}
    log.log(logging.INFO if pace.holds else logging.WARNING, "pace measured", extra=facts)
    return replace(profile, capacity=pace.sessions), pace.s_per_s


async def _until_stopped(
    settings: Settings,
    server: WorkerServer,
    heartbeat: Heartbeat,
    beating: asyncio.Task[None],
    *,
    join: Coroutine[Any, Any, None],
    stop: asyncio.Future[float],
    deaths: Iterable[Coroutine[Any, Any, str]],
) -> None:
    """Join and serve until `stop`, then drain for as long as that allows.

    Raises EngineFailed with what any of `deaths` returns, if one comes first.
    """
    joining = asyncio.create_task(join, name="join")
    dying = [asyncio.create_task(death) for death in deaths]
    watched = [beating, stop, *dying]
    try:
        await asyncio.wait([joining, *watched], return_when=asyncio.FIRST_COMPLETED)
        if joining.done():
            await joining
            await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
        if beating.done():
            await beating
        for death in dying:
            if death.done():
                raise EngineFailed(f"{death.result()}; this worker ends and is restarted")
        joining.cancel()
        drain = asyncio.create_task(server.drain(await stop, handover_s=settings.handover_timeout_s))
        heartbeat.hurry()
        await drain
    finally:
        for task in (joining, *watched):
            task.cancel()
        await asyncio.gather(joining, *watched, return_exceptions=True)


def _stop_at_signal(stop: asyncio.Future[float], deadline_s: float) -> None:
    """Let SIGTERM and SIGINT set how long sessions may go on; the first to do so decides."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _stop_within, stop, deadline_s)


def _stop_within(stop: asyncio.Future[float], deadline_s: float) -> None:
    if not stop.done():
        log.info("worker drains", extra={"deadline_s": deadline_s})
        stop.set_result(deadline_s)


def _device(setting: str) -> str:
    import torch

    available = torch.cuda.is_available()
    if setting == "cuda" and not available:
        raise ConfigurationError("CARILLON_DEVICE=cuda, but torch sees no GPU; `carillon doctor` says why")
    return "cuda" if available and setting != "cpu" else "cpu"
