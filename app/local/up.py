"""`carillon up`: the whole fleet on one machine, from nothing to an address and a key.

Whatever is not configured is embedded: Valkey, an S3 store, SQLite, secrets. The order is secrets, Valkey, S3, tables,
then workers, tasks and front door at once; it stops the other way round. It does not know what the programs do.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from pydantic import SecretStr
from redis.asyncio import Redis

from app.catalog import Catalog
from app.errors import AuthenticationFailed, ConfigurationError, DeadlineExceeded
from app.fleet.registry import Registry, open_redis
from app.fleet.worker import Worker
from app.local import processes
from app.local.embedded import LOOPBACK, free_port, object_store, redis_url, valkey
from app.local.run_file import RunFile, locked
from app.local.supervisor import Supervisor
from app.platform.browser_sessions import INVITATION_S, BrowserSessions
from app.platform.data_dir import Secrets, load_secrets, save_secrets, with_secrets
from app.platform.gpus import Gpu, as_served, has_gpu_build, look, seat, visible
from app.platform.model_files import fetch, model_size
from app.platform.profiles import engine_profile
from app.platform.settings import Settings
from app.speech.choices import Scope
from app.speech.voices import ModelCard

PROGRESS_INTERVAL_S = 10.0
PROGRESS_POLL_S = 0.5
FRONT_DOOR_TIMEOUT_S = 60.0

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, a service manager, a terminal that is closed."""


@dataclass(frozen=True)
class Fleet:
    """A started fleet: its address, key (None: none is needed) and models.

    `console` is a link that signs one browser in; None where there is no console.
    """

    address: str
    token: str | None
    models: tuple[ModelCard, ...]
    console: str | None = None


async def up(settings: Settings, *, workers: int, out: TextIO, show_logs: bool = False) -> None:
    """Start everything, print how to speak to it, and keep it running until a signal.

    With no worker of its own the front door waits for workers elsewhere. Raises ConfigurationError or DeadlineExceeded
    when a part does not start; what had started is stopped then.
    """

    def report(sentence: str) -> None:
        # The terminal may be gone; the programs are stopped in order all the same.
        with contextlib.suppress(OSError):
            print(f"carillon: {sentence}", file=out, flush=True)

    def echo(name: str, line: str) -> None:
        with contextlib.suppress(OSError):
            print(f"{name:9} | {line}", file=out, flush=True)

    settings = settings.model_copy(update={"data_dir": settings.data_dir.absolute()})
    with locked(settings.data_dir):
        run_file = RunFile(settings.data_dir / "run.json", report)
        supervisor = Supervisor(
            settings.data_dir / "logs",
            report=report,
            echo=echo if show_logs else None,
            changed=lambda: run_file.write(supervisor),
        )
        try:
            async with until_signal(supervisor), supervisor:
                began = time.monotonic()
                fleet = await _start(supervisor, run_file, settings, workers, report)
                report(f"ready after {time.monotonic() - began:.0f} s")
                print(_welcome(fleet, settings), file=out, flush=True)
                await asyncio.Event().wait()
            report("stopped")
        finally:
            run_file.path.unlink(missing_ok=True)


async def _start(
    supervisor: Supervisor, run_file: RunFile, settings: Settings, workers: int, report: Callable[[str], None]
) -> Fleet:
    """Start every part in order."""
    # Before anything has a time to be ready in: a checkpoint may be many gigabytes.
    model_dir = await fetch(settings.model, variable="CARILLON_MODEL", progress=report)
    await fetch(settings.codec, variable="CARILLON_CODEC", progress=report)
    usable = settings.device != "cpu" and has_gpu_build()
    gpus = visible(look(), os.environ.get("CUDA_VISIBLE_DEVICES")) if usable else ()
    worker_cards, trainer_card = cards_of(settings, workers, model_dir, report, gpus)
    local = load_secrets(settings.data_dir)
    family = worker_family(settings)
    settings = await _start_stores(supervisor, with_secrets(settings, local), local, report)
    token = await prepare_catalog(settings, local)
    environment = processes.environment(settings)
    port = front_door_port(settings)
    host = LOOPBACK if settings.api_host == "0.0.0.0" else settings.api_host
    run_file.facts |= {"api": f"http://{host}:{port}", "started_at": time.time()}

    fleet = [
        processes.worker(f"worker-{number}", f"{family}-{number}", settings, environment | worker_cards[number - 1])
        for number in range(1, workers + 1)
    ]
    fleet.append(processes.tasks(settings, environment | trainer_card))
    address = f"http://{host}:{port}"

    async def front_door() -> None:
        await supervisor.start(processes.front_door(host, port, settings, environment))
        report(f"the front door answers at {address}" + (", and says what it waits for: /readyz" if workers else ""))

    redis = open_redis(settings)
    registry = Registry(redis, settings)
    try:
        async with _progress(registry, report):
            await _together(front_door(), *(supervisor.start(program) for program in fleet))
            if workers:
                await _until_it_can_speak(host, port)
        serving = await registry.snapshot()
        console = await _console_link(address, token, redis, settings)
    finally:
        await redis.aclose()
    for worker in serving:
        if worker.pace_s_per_s is not None:
            report(pace_in_words(worker))
    models = tuple({worker.model.name: worker.model for worker in serving}.values())
    return Fleet(address, token, models, console)


async def _console_link(address: str, token: str | None, redis: Redis, settings: Settings) -> str | None:
    if not settings.console.enabled:
        return None
    return f"{address}/?token={await BrowserSessions(redis).invite(token)}" if token else address


def pace_in_words(worker: Worker) -> str:
    """What a worker has measured of itself, for the operator; `pace_s_per_s` is set."""
    pace = worker.pace_s_per_s or 0.0
    sessions = "1 session" if worker.capacity == 1 else f"{worker.capacity} sessions at once"
    words = f"{worker.id}: {sessions}, {pace:.2f} s of work for each second of speech"
    if pace <= 1:
        return words
    return (
        f"{words}: this machine is slower than speech, and a listener will hear gaps. Stop what else runs here, take a "
        "machine with faster cores or a GPU, or ask for whole files"
    )


def cards_of(
    settings: Settings, workers: int, model_dir: Path, report: Callable[[str], None], gpus: Sequence[Gpu]
) -> tuple[list[dict[str, str]], dict[str, str]]:
    """Variables for each worker and for the trainer that give each its card of `gpus`; none where there are none.

    Raises ConfigurationError when there are more workers than cards.
    """
    if not gpus:
        return [{}] * workers, {}
    size, share = model_size(model_dir), settings.engine.gpu_memory_utilization
    seating = seat(gpus, workers, model=size, share=share)
    report(seating.words())
    for place in dict.fromkeys(seating.workers):
        profile = engine_profile(
            "cuda",
            card=as_served(place.gpu, settings.engine.quantization),
            model=size,
            max_model_len=settings.engine.max_model_len,
            share=place.share,
        )
        report(f"each worker on card {place.gpu.index}: {settings.over(profile).words()}")
    return [place.environment for place in seating.workers], seating.trainer.environment


def worker_family(settings: Settings) -> str:
    """What the ids of this fleet's workers begin with: in a Redis that others may share, no other's do."""
    if settings.redis_url is None:
        return "worker"
    return f"{socket.gethostname()}-{hashlib.sha256(bytes(settings.data_dir.absolute())).hexdigest()[:6]}"


async def _start_stores(
    supervisor: Supervisor, settings: Settings, local: Secrets, report: Callable[[str], None]
) -> Settings:
    """Start the stores that are not configured elsewhere, and return `settings` that lead to them."""
    if settings.redis_url is None:
        port = free_port()
        await supervisor.start(valkey(settings.data_dir / "valkey", port=port, password=local.redis_password))
        settings = settings.model_copy(update={"redis_url": SecretStr(redis_url(port, local.redis_password))})
        report(f"valkey is ready on port {port}")
    if settings.store.endpoint_url is None:
        port = free_port()
        store = settings.store.model_copy(
            update={
                "endpoint_url": f"http://{LOOPBACK}:{port}",
                "access_key": local.store_access_key,
                "secret_key": local.store_secret_key,
            }
        )
        await supervisor.start(object_store(settings.data_dir / "s3", port=port, store=store))
        settings = settings.model_copy(update={"store": store})
        report(f"s3 is ready on port {port}")
    return settings


async def prepare_catalog(settings: Settings, local: Secrets) -> str | None:
    """Migrate the tables, and create the owner's key, which is the same at every start."""
    catalog = Catalog(settings.database, pepper=settings.key_pepper)
    try:
        await catalog.migrate()
        if not settings.auth:
            return None
        if local.api_token:
            # Revoked, or of another database: then a new one is made.
            with contextlib.suppress(AuthenticationFailed):
                await catalog.keys.authenticate(local.api_token.get_secret_value())
                return local.api_token.get_secret_value()
        key = await catalog.keys.create("carillon up", {Scope.ADMIN})
        save_secrets(settings.data_dir, local.model_copy(update={"api_token": SecretStr(key.token)}))
        return key.token
    finally:
        await catalog.aclose()


async def _until_it_can_speak(host: str, port: int) -> None:
    ready = processes.answers(host, port, "/readyz")
    try:
        async with asyncio.timeout(FRONT_DOOR_TIMEOUT_S):
            while not await ready(0):
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise DeadlineExceeded(f"the front door found no worker within {FRONT_DOOR_TIMEOUT_S:.0f} s") from None


def front_door_port(settings: Settings) -> int:
    """The configured port; where 8000 is only the default and taken, a free one.

    Raises ConfigurationError for a port or an address that cannot be listened on.
    """
    if settings.api_port:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((settings.api_host, settings.api_port))
                return settings.api_port
            except OSError as error:
                if "api_port" in settings.model_fields_set:
                    raise ConfigurationError(
                        f"CARILLON_API_PORT={settings.api_port} on {settings.api_host} cannot be had "
                        f"({error.strerror}); stop whatever has it, or choose another (0: any free one)"
                    ) from None
    try:
        return free_port(settings.api_host)
    except OSError as error:
        raise ConfigurationError(
            f"CARILLON_API_HOST={settings.api_host} cannot be listened on ({error.strerror}); set it to an address of "
            "this machine: 127.0.0.1, or 0.0.0.0 for all that it has"
        ) from None


async def _together(*starts: Coroutine[Any, Any, Any]) -> None:
    """Run the starts at once; the first failure is raised as itself."""
    try:
        async with asyncio.TaskGroup() as group:
            for start in starts:
                group.create_task(start)
    except ExceptionGroup as group:
        raise group.exceptions[0] from None


@asynccontextmanager
async def _progress(registry: Registry, report: Callable[[str], None]) -> AsyncIterator[None]:
    """Say which part of its start each worker begins, and every ten seconds that it is still in it."""
    began_at = time.monotonic()
    reported: dict[str, str] = {}

    async def poll() -> None:
        reported_at = began_at
        while True:
            await asyncio.sleep(PROGRESS_POLL_S)
            with contextlib.suppress(DeadlineExceeded):
                parts = {worker.id: worker.part for worker in await registry.snapshot() if worker.part}
                again = time.monotonic() - reported_at >= PROGRESS_INTERVAL_S
                for id, part in parts.items():
                    if again or reported.get(id) != part:
                        report(f"{id}: {part} … {time.monotonic() - began_at:.0f} s")
                        reported_at = time.monotonic()
                reported.update(parts)

    reminder = asyncio.create_task(poll())
    try:
        yield
    finally:
        reminder.cancel()
        await asyncio.gather(reminder, return_exceptions=True)


@asynccontextmanager
async def until_signal(supervisor: Supervisor) -> AsyncIterator[None]:
    """Run the body until a signal cancels it, and end quietly then. A second signal kills every program.

    A supervisor that is stopping already, because the start failed, is left to it, and the failure is what is raised.
    """
    loop = asyncio.get_running_loop()
    body = asyncio.current_task()
    assert body
    signals = 0

    def on_signal() -> None:
        nonlocal signals
        signals += 1
        if signals > 1:
            supervisor.kill()
        elif not supervisor.stopping:
            body.cancel()

    # Under nohup a terminal that is closed ends nothing.
    heeded = [number for number in SIGNALS if (number, signal.getsignal(number)) != (signal.SIGHUP, signal.SIG_IGN)]
    for number in heeded:
        loop.add_signal_handler(number, on_signal)
    try:
        yield
    except asyncio.CancelledError:
        if not signals:
            raise
        body.uncancel()
    finally:
        for number in heeded:
            loop.remove_signal_handler(number)


def _welcome(fleet: Fleet, settings: Settings) -> str:
    model = fleet.models[0] if fleet.models else None
    request = json.dumps(
        {
            "model": model.name if model else "MODEL",
            "voice": model.voices[0] if model else "VOICE",
            "input": "Hello. I am Carillon, and I speak with many voices.",
            "response_format": "wav",
        }
    )
    host = urlsplit(fleet.address).netloc
    lines = [
        f"curl {fleet.address}/v1/audio/speech -o out.wav",
        *(["--noproxy '*'"] if getproxies().get("http") and not proxy_bypass(host) else []),
        *([f"-H 'Authorization: Bearer {fleet.token}'"] if fleet.token else []),
        "-H 'Content-Type: application/json'",
        f"-d '{request}'",
    ]
    curl = " \\\n      ".join(lines)
    return f"""
  front door  {fleet.address}
  key         {fleet.token or "none needed: CARILLON_AUTH is off"}
  logs        {settings.data_dir}/logs
{_console_lines(fleet)}
  Hear it:
    {curl}

    {_own_name()} say "Hello. I am Carillon." -o out.wav

  Ctrl-C stops everything.
"""


def _console_lines(fleet: Fleet) -> str:
    if fleet.console is None:
        return ""
    once = f" (once, within {INVITATION_S // 60} minutes; `{_own_name()} console` prints another)"
    return f"""
  See it in a browser{once if fleet.token else ""}:
    {fleet.console}
  and talk with it there: {fleet.address}/talk
"""


def _own_name() -> str:
    """The command line by which the user called this program."""
    path = Path(sys.argv[0])
    return path.name if shutil.which(path.name) == str(path) else os.path.relpath(path)
