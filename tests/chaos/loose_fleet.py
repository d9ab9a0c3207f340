"""A fleet as an operator runs it without `carillon up`: separate programs, each of which a test can kill, stop or cut.

A supervisor starts again what has ended, as systemd would. Where there can be network namespaces, each worker has one.
Every engine is greedy and computes in float32, so that the same text is the same audio whatever is spoken beside.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
import psutil
from pydantic import SecretStr
from redis.asyncio import Redis

from app.fleet.registry import ROOT, open_redis
from app.fleet.worker import Worker, WorkerState
from app.local import processes
from app.local.embedded import LOOPBACK, free_port, redis_url, valkey
from app.local.supervisor import Child, Program, State, Supervisor
from app.local.up import prepare_catalog
from app.platform.data_dir import load_secrets
from app.platform.settings import Settings
from app.speech.protocol import Pace
from tests.chaos.listener import Listener, Received, listening, resuming
from tests.chaos.network import Network
from tests.chaos.tale import CHUNK_CHARS, TALE, VOICES
from tests.support.deadlines import LONG_HANG_S

WORKERS = ("worker-1", "worker-2")
FRONT_DOORS = ("front-door-1", "front-door-2")
WORKER_PORT = 7000
"""In a namespace of its own it is free."""

CAPACITY = 6
CONFIGURED = {
    "CARILLON_CAPACITY": str(CAPACITY),
    "CARILLON_ENGINE__DTYPE": "float32",
    "CARILLON_ENGINE__TEMPERATURE": "0",
    "CARILLON_SESSION__MAX_CHUNK_CHARS": str(CHUNK_CHARS),
    "CARILLON_SESSION__IDLE_TIMEOUT_S": str(LONG_HANG_S),
    # A session that says nothing holds its place here: the tests count places, and where sessions are.
    "CARILLON_SESSION__IDLE_PLACE_S": str(100 * LONG_HANG_S),
    "CARILLON_SESSION__MOVE_TIMEOUT_S": str(LONG_HANG_S),
    "PYTHONUNBUFFERED": "1",
}


@dataclass
class LooseFleet:
    """What runs, and how to hurt it."""

    supervisor: Supervisor
    settings: Settings
    token: str
    network: Network | None
    no_network: str | None
    """Why there is none."""
    addresses: Mapping[str, str] = field(default_factory=dict)
    """Of the front doors, by their program's name."""

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def child(self, program: str) -> Child:
        return self.supervisor.children[program]

    def pid_of(self, program: str) -> int:
        pid = self.child(program).pid
        assert pid is not None, f"{program} does not run"
        return pid

    def engine_of(self, worker: str) -> int:
        """The process of a worker's engine core."""
        children = psutil.Process(self.pid_of(worker)).children()
        [engine] = [child for child in children if child.cmdline()[0] == "VLLM::EngineCore"]
        return engine.pid

    def kill(self, program: str) -> None:
        os.kill(self.pid_of(program), signal.SIGKILL)

    def stop(self, worker: str) -> None:
        """Neither the worker nor its engine does anything any more; their sockets stay open."""
        os.killpg(self.pid_of(worker), signal.SIGSTOP)

    def wake(self, worker: str) -> None:
        os.killpg(self.pid_of(worker), signal.SIGCONT)

    # As a client of it.

    @asynccontextmanager
    async def client(self, at: str = FRONT_DOORS[0]) -> AsyncIterator[httpx.AsyncClient]:
        address = self.addresses[at]
        async with httpx.AsyncClient(
            base_url=address, headers=self.headers, timeout=LONG_HANG_S, trust_env=False
        ) as client:
            yield client

    @asynccontextmanager
    async def speaking(
        self,
        text: str | Sequence[str] | None = TALE,
        *,
        voice: str = VOICES[0],
        pace: Pace = "unpaced",
        at: str = FRONT_DOORS[0],
        ends: bool = True,
        resumable: bool = False,
    ) -> AsyncIterator[Listener]:
        """A session that has been sent all of `text`, in one piece or in these; with None it has only begun."""
        address = self.addresses[at]
        async with listening(address, self.headers, voice=voice, pace=pace, resumable=resumable) as listener:
            if text is not None:
                await listener.write(text, ends=ends)
            yield listener

    def resuming(self, received: Received, *, received_samples: int, at: str) -> AbstractAsyncContextManager[Listener]:
        """A session taken up on another connection."""
        return resuming(self.addresses[at], self.headers, received, received_samples=received_samples)

    async def download(self, text: str = TALE, *, voice: str = VOICES[0]) -> bytes:
        """The samples of `POST /v1/audio/speech`, streamed."""
        said = {"model": "standin", "voice": voice, "input": text, "response_format": "pcm"}
        async with self.client() as client, client.stream("POST", "/v1/audio/speech", json=said) as answer:
            assert answer.status_code == 200, await answer.aread()
            return b"".join([piece async for piece in answer.aiter_raw()])

    # What it says of itself.

    @asynccontextmanager
    async def redis(self) -> AsyncIterator[Redis]:
        redis = open_redis(self.settings)
        try:
            yield redis
        finally:
            await redis.aclose()

    async def leases(self, worker: str) -> int:
        """How many sessions have a place at a worker, by the registry."""
        async with self.redis() as redis:
            return await redis.zcard(f"{ROOT}leases:{worker}")

    async def seen_by(self, front_door: str) -> dict[str, Worker]:
        """The workers as a front door sees them."""
        async with self.client(front_door) as client:
            answer = (await client.get("/v1/fleet")).raise_for_status().json()
        return {worker["id"]: Worker.model_validate(worker) for worker in answer["workers"]}

    async def until_whole(self) -> None:
        """Wait until every program runs, and every front door sees every worker active and without a session."""
        for program, child in self.supervisor.children.items():
            await _until(lambda child=child: child.state is State.READY and child.pid is not None, program)
        for front_door in FRONT_DOORS:
            for worker in WORKERS:
                await self.until_active(worker, at=front_door, idle=True)

    async def until_active(self, worker: str, *, at: str = FRONT_DOORS[0], idle: bool = False) -> None:
        """Wait until a front door sees a worker as active, and `idle` without a session."""
        async with asyncio.timeout(LONG_HANG_S):
            while True:
                seen = (await self.seen_by(at)).get(worker)
                if seen and seen.state is WorkerState.ACTIVE and not (idle and seen.inflight):
                    return
                await asyncio.sleep(0.1)

    async def until_gone(self, program: str, pid: int) -> None:
        """Wait until this incarnation of a program has ended."""
        await _until(lambda: self.child(program).pid != pid, program)

    def log_of(self, program: str) -> str:
        return self.child(program).log.path.read_text()


@asynccontextmanager
async def loose_fleet(directory: Path, network: Network | None, no_network: str | None) -> AsyncIterator[LooseFleet]:
    """Start the stores, the workers and the front doors, and stop them at the end."""
    secrets = load_secrets(directory)
    port = free_port()
    stores_host = network.stores if network else LOOPBACK
    url = redis_url(port, secrets.redis_password).replace(LOOPBACK, stores_host)
    settings = Settings(
        data_dir=directory,
        redis_url=SecretStr(url),
        key_pepper=secrets.key_pepper,
        fleet_secret=secrets.fleet_secret,
    )
    environment = _environment(settings)
    async with Supervisor(directory / "logs", report=lambda _: None) as supervisor:
        store = valkey(directory / "valkey", port=port, password=secrets.redis_password)
        hosts = list({LOOPBACK: None, stores_host: None})
        await supervisor.start(replace(store, command=[*store.command, "--bind", *hosts]))
        token = await prepare_catalog(settings, secrets)
        assert token
        ports = {front_door: free_port() for front_door in FRONT_DOORS}
        addresses = {front_door: f"http://{LOOPBACK}:{port}" for front_door, port in ports.items()}
        fleet = LooseFleet(supervisor, settings, token, network, no_network, addresses)
        async with asyncio.TaskGroup() as group:
            for worker in WORKERS:
                group.create_task(supervisor.start(_worker(worker, network, environment)))
            for front_door, port in ports.items():
                program = processes.front_door(LOOPBACK, port, settings, environment)
                group.create_task(supervisor.start(replace(program, name=front_door)))
        await fleet.until_whole()
        yield fleet


def _environment(settings: Settings) -> dict[str, str]:
    assert settings.redis_url
    inherited = {name: "" for name in os.environ if name.startswith("CARILLON_")}
    return {
        **inherited,
        **CONFIGURED,
        "CARILLON_DATA_DIR": str(settings.data_dir),
        "CARILLON_REDIS_URL": settings.redis_url.get_secret_value(),
        "CARILLON_KEY_PEPPER": settings.key_pepper.get_secret_value(),
        "CARILLON_FLEET_SECRET": settings.fleet_secret.get_secret_value(),
    }


def _worker(name: str, network: Network | None, environment: Mapping[str, str]) -> Program:
    command = [sys.executable, "-P", "-m", "app.cli.main", "worker"]
    host, port = LOOPBACK, free_port()
    if network:
        host, port = network.add(name), WORKER_PORT
        command = [*network.inside(name), *command]
    named = {
        "CARILLON_STORE__ENDPOINT_URL": f"http://{LOOPBACK}:9",  # read only for adapters, and no session has one
        "CARILLON_WORKER_ID": name,
        "CARILLON_WORKER_HOST": host,
        "CARILLON_WORKER_PORT": str(port),
    }
    return Program(
        name=name,
        command=command,
        environment={**environment, **named},
        stage=processes.BEHIND_THE_FRONT_DOOR,
        ready=processes.answers(host, port, "/healthz"),
        start_timeout_s=LONG_HANG_S,
        grace_s=2,
    )


async def _until(holds: Callable[[], bool], what: str) -> None:
    try:
        async with asyncio.timeout(LONG_HANG_S):
            while not holds():
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(f"waited for {what} for {LONG_HANG_S:g} s") from None
