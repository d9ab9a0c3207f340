"""A whole fleet to be hurt: its stores, front doors, workers and a tasks process, each a program of a supervisor's.

Every program reaches every other by a link of its own, so that one can be cut off from one store alone. PostgreSQL is
there where the machine has it; SQLite is otherwise. Workers are scripted: `tests.soak.worker` says why.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psycopg
from pydantic import SecretStr
from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.catalog import Catalog
from app.local import processes
from app.local.embedded import LOOPBACK, free_port, object_store, redis_url, valkey
from app.local.supervisor import Program, State, Supervisor
from app.local.up import prepare_catalog
from app.platform.data_dir import Secrets, load_secrets
from app.platform.settings import Settings, StoreSettings
from tests.soak.clock import Clock, library
from tests.soak.disk import Disk, small_disks
from tests.soak.faults import Fault, Kind, Targets
from tests.soak.link import Link
from tests.support.deadlines import HANG_S, LONG_HANG_S
from tests.support.real_services import Cluster, postgres_program

WORKERS = ("worker-1", "worker-2", "worker-3")
FRONT_DOORS = ("front-door-1", "front-door-2")
SLOW_S = 0.1
SYNC_S = 20.0
"""Within which a standby has what the Valkey in use has, unless something keeps it from that."""

VALKEYS = ("valkey-1", "valkey-2")
DRAIN_S = 2.0
JOURNALS_BACK_S = 2.0
"""Within which a front door has written its sessions' journals to a Valkey that has lost them."""

RESUMED_S = 90.0
"""Within which a session is resumed, or not any more."""
CONFIGURED = {
    "CARILLON_CAPACITY": "8",
    "CARILLON_SESSION__MAX_CHUNK_CHARS": "300",
    "CARILLON_DRAIN_TIMEOUT_S": "2",
    "CARILLON_WARM_UP_TIMEOUT_S": "0",
    # On a busy machine a heartbeat may take a second, and a worker that is late is not dead.
    "CARILLON_HEARTBEAT_S": "2",
    "CARILLON_WORKER_TTL_S": "10",
    "CARILLON_LOG_FORMAT": "text",
}


@dataclass
class SoakFleet:
    """What runs, how it is reached, and how it is hurt."""

    supervisor: Supervisor
    settings: Settings
    token: str
    doors: Mapping[str, str]
    """The front doors' addresses."""
    operator: Link
    """To the Valkey that is in use; nothing happens to this one."""
    valkeys: list[int]
    """The ports of the Valkey in use and of its standby."""
    links: dict[str, Link] = field(default_factory=dict)
    """By `who>whom`; what leads to a worker, by its name after `>` alone."""
    disks: Mapping[str, Disk] = field(default_factory=dict)
    """By whose they are; none where none can be mounted."""
    clocks: Mapping[str, Clock] = field(default_factory=dict)
    """By whose they are; none where libfaketime is not."""
    background: bool = True
    """Whether there is a tasks process."""
    stopped: Counter[str] = field(default_factory=Counter)
    """Programs that are stopped now, by how many faults."""
    door_seen_at: float = 0.0
    failing_over: asyncio.Lock = field(default_factory=asyncio.Lock)
    door_killed_at: list[float] = field(default_factory=list)
    emptied_at: list[float] = field(default_factory=list)
    """When Valkey lost what it had, or some of it."""

    def both_copies_lost(self) -> bool:
        """Whether a front door died with its sessions, and Valkey lost their journals from shortly before that on."""
        now = asyncio.get_running_loop().time()
        killed = [at for at in self.door_killed_at if now - at < RESUMED_S]
        return any(lost > at - JOURNALS_BACK_S for at in killed for lost in self.emptied_at)

    def without_front_door_s(self) -> float:
        """For how long no front door has been there to be asked: killed, stopped, or not yet started again."""
        now = asyncio.get_running_loop().time()
        children = self.supervisor.children
        up = [name for name in self.doors if children[name].state is State.READY and not self.stopped[name]]
        if up:
            self.door_seen_at = now
        return now - self.door_seen_at

    async def watch_front_doors(self) -> None:
        """Until cancelled."""
        while True:
            self.without_front_door_s()
            await asyncio.sleep(0.2)

    @property
    def targets(self) -> Targets:
        programs = [name for name in self.supervisor.children]
        return Targets(programs, list(self.links), WORKERS, list(self.disks), list(self.clocks))

    async def apply(self, fault: Fault) -> bool:
        """Do it, and undo it when its time is over. False where there was nothing to do it to."""
        match fault.kind:
            case Kind.KILL:
                if fault.target in self.doors:
                    self.door_killed_at.append(asyncio.get_running_loop().time())
                return self._signal(fault.target, signal.SIGKILL)
            case Kind.STOP:
                return await self._stop(fault.target, fault.lasts_s)
            case Kind.CUT:
                self.links[fault.target].cut()
            case Kind.SLOW:
                self.links[fault.target].delay_s = SLOW_S
            case Kind.FLUSH:
                return await self._flush()
            case Kind.FAIL_OVER:
                async with self.failing_over:
                    return await self._fail_over()
            case Kind.DRAIN:
                return await self.drain(fault.target)
            case Kind.FILL:
                self.disks[fault.target].fill()
            case Kind.STEP:
                self.clocks[fault.target].set(fault.by_s)
        try:
            await asyncio.sleep(fault.lasts_s)
        finally:
            self._mend(fault)
        return True

    def _mend(self, fault: Fault) -> None:
        match fault.kind:
            case Kind.FILL:
                self.disks[fault.target].empty()
            case Kind.STEP:
                self.clocks[fault.target].set(0.0)
            case _:
                self.links[fault.target].mend()

    def _signal(self, program: str, number: signal.Signals) -> bool:
        pid = self.supervisor.children[program].pid
        if pid is None:
            return False
        with suppress(ProcessLookupError):
            os.killpg(pid, number)
            return True
        return False

    async def _stop(self, program: str, lasts_s: float) -> bool:
        pid = self.supervisor.children[program].pid
        if pid is None or not self._signal(program, signal.SIGSTOP):
            return False
        self.stopped[program] += 1
        try:
            await asyncio.sleep(lasts_s)
        finally:
            self.stopped[program] -= 1
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGCONT)
        return True

    async def _flush(self) -> bool:
        assert self.settings.redis_url
        try:
            async with asyncio.timeout(5), Redis.from_url(self.settings.redis_url.get_secret_value()) as redis:
                await redis.flushall()
        except (RedisError, OSError, TimeoutError):
            return False
        self.emptied_at.append(asyncio.get_running_loop().time())
        return True

    async def _fail_over(self) -> bool:
        """What is not copied yet is lost, as it is when a standby takes over from a Valkey that is gone."""
        primary, standby = self.valkeys
        assert self.settings.redis_url
        address = urlsplit(self.settings.redis_url.get_secret_value())
        try:
            async with asyncio.timeout(SYNC_S), Redis(host=LOOPBACK, port=standby, password=address.password) as redis:
                await redis.config_set("masterauth", address.password or "")
                await redis.replicaof(LOOPBACK, str(primary))
                while (await redis.info("replication"))["master_link_status"] != "up":
                    await asyncio.sleep(0.1)
                await redis.replicaof("NO", "ONE")
        except (RedisError, OSError, TimeoutError, KeyError):
            return False
        self.emptied_at.append(asyncio.get_running_loop().time())
        self.valkeys.reverse()
        for name, link in [("operator", self.operator), *self.links.items()]:
            if name == "operator" or name.endswith(">valkey"):
                link.lead_to(standby)
        return True

    async def drain(self, worker: str) -> bool:
        for address in self.doors.values():
            with suppress(httpx.HTTPError):
                async with self.client(address, timeout_s=HANG_S) as client:
                    answer = await client.post(f"/v1/fleet/workers/{worker}/drain", json={"deadline_s": DRAIN_S})
                    if answer.is_success:
                        return True
        return False

    def client(self, address: str, *, key: str | None = None, timeout_s: float = 60) -> httpx.AsyncClient:
        """Of who has `key`; without, of the operator."""
        return httpx.AsyncClient(
            base_url=address,
            headers={"Authorization": f"Bearer {key or self.token}"},
            timeout=timeout_s,
            trust_env=False,
        )

    def catalog(self) -> Catalog:
        return Catalog(self.settings.database, pepper=self.settings.key_pepper)


CHECKOUT = Path(__file__).parents[2]

Prepare = Callable[[Settings, Secrets], Awaitable[str | None]]
"""Makes the tables, and the operator's key."""


@asynccontextmanager
async def soak_fleet(
    directory: Path, *, background: bool, checkout: Path = CHECKOUT, prepare: Prepare = prepare_catalog
) -> AsyncIterator[SoakFleet]:
    """Start everything; `background` with the tasks process. The programs are those of a `checkout`."""
    secrets = load_secrets(directory)
    ports = {name: free_port() for name in (*VALKEYS, "s3", *FRONT_DOORS, *WORKERS)}
    operator = Link(ports[VALKEYS[0]])
    await operator.start()
    with tempfile.TemporaryDirectory(prefix="carillon-postgres-") as clusters, ExitStack() as stack:
        own = [*VALKEYS, "s3", *FRONT_DOORS, "tasks"]
        at = {name: directory / name for name in own if background or name != "tasks"}
        if postgres_program("postgres"):
            at["postgres"] = Path(clusters)
        disks = stack.enter_context(small_disks(at))
        clocks = _clocks(directory)
        cluster = Cluster.make(Path(clusters)) if "postgres" in at else None
        if cluster:
            ports["postgres"] = cluster.running.port
        settings = _settings(directory, secrets, ports, operator, cluster)
        async with Supervisor(directory / "logs", report=lambda _: None) as supervisor:
            for program in _stores(directory, secrets, settings, ports, cluster):
                await supervisor.start(replace(_timed(program, clocks), start_timeout_s=LONG_HANG_S))
            token = await prepare(settings, secrets)
            assert token
            doors = {name: f"http://{LOOPBACK}:{ports[name]}" for name in FRONT_DOORS}
            valkeys = [ports[name] for name in VALKEYS]
            fleet = SoakFleet(
                supervisor, settings, token, doors, operator, valkeys, disks=disks, clocks=clocks, background=background
            )
            try:
                await _start_programs(fleet, ports, checkout)
                yield fleet
            finally:
                for link in (operator, *fleet.links.values()):
                    await link.stop()


def _clocks(directory: Path) -> dict[str, Clock]:
    """Of the programs that this user runs and that ask the C library for the time.

    Not of the tasks process: libfaketime lets `time.sleep` fail when a clock jumps, and Celery sleeps so in a thread.
    """
    if (found := library()) is None:
        return {}
    return {name: Clock(found, directory / "clocks" / name) for name in (*VALKEYS, *FRONT_DOORS, *WORKERS)}


def _timed(program: Program, clocks: Mapping[str, Clock]) -> Program:
    """The program, by a clock of its own where it has one."""
    if program.name not in clocks:
        return program
    return replace(program, environment={**program.environment, **clocks[program.name].environment})


def _settings(
    directory: Path, secrets: Secrets, ports: Mapping[str, int], operator: Link, cluster: Cluster | None
) -> Settings:
    return Settings(
        data_dir=directory,
        redis_url=SecretStr(redis_url(operator.port, secrets.redis_password)),
        database_url=cluster.running.url("postgres") if cluster else None,
        key_pepper=secrets.key_pepper,
        fleet_secret=secrets.fleet_secret,
        store=StoreSettings(
            endpoint_url=f"http://{LOOPBACK}:{ports['s3']}",
            access_key=secrets.store_access_key,
            secret_key=secrets.store_secret_key,
        ),
    )


def _stores(
    directory: Path, secrets: Secrets, settings: Settings, ports: Mapping[str, int], cluster: Cluster | None
) -> Iterator[Program]:
    for name in VALKEYS:
        yield replace(valkey(directory / name, port=ports[name], password=secrets.redis_password), name=name)
    yield object_store(directory / "s3", port=ports["s3"], store=settings.store)
    if cluster:
        yield Program(name="postgres", command=cluster.command, ready=_answers(cluster.running.url("postgres")))


async def _start_programs(fleet: SoakFleet, ports: Mapping[str, int], checkout: Path) -> None:
    async def link(name: str, port: int) -> int:
        fleet.links[name] = made = Link(port)
        await made.start()
        return made.port

    async def environment(program: str) -> dict[str, str]:
        """The stores, each by a link of the program's own."""
        inherited = {name: "" for name in os.environ if name.startswith("CARILLON_")}
        given = {**inherited, **processes.environment(fleet.settings), **CONFIGURED, "PYTHONPATH": str(checkout)}
        if program in fleet.disks:
            given["CARILLON_DATA_DIR"] = str(fleet.settings.data_dir / program)
        led = {"CARILLON_REDIS_URL": ("valkey", fleet.operator.port, fleet.valkeys[0])}
        if program not in WORKERS:
            led["CARILLON_STORE__ENDPOINT_URL"] = "s3", ports["s3"], ports["s3"]
            if "postgres" in ports:
                led["CARILLON_DATABASE_URL"] = "postgres", ports["postgres"], ports["postgres"]
        for name, (store, told, port) in led.items():
            own = await link(f"{program}>{store}", port)
            given[name] = given[name].replace(f"{LOOPBACK}:{told}", f"{LOOPBACK}:{own}")
        return given

    programs = []
    for worker in WORKERS:
        at = await link(f">{worker}", ports[worker])
        programs.append(_scripted(worker, ports[worker], at, await environment(worker)))
    for door in FRONT_DOORS:
        program = processes.front_door(LOOPBACK, ports[door], fleet.settings, await environment(door))
        programs.append(replace(program, name=door, start_timeout_s=LONG_HANG_S))
    if fleet.background:
        program = processes.tasks(fleet.settings, await environment("tasks"))
        programs.append(replace(program, start_timeout_s=LONG_HANG_S))
    async with asyncio.TaskGroup() as group:
        for program in programs:
            group.create_task(fleet.supervisor.start(_timed(program, fleet.clocks)))


def _scripted(name: str, port: int, linked_port: int, environment: Mapping[str, str]) -> Program:
    return Program(
        name=name,
        command=[sys.executable, "-P", "-m", "tests.soak.worker"],
        environment={
            **environment,
            "CARILLON_WORKER_ID": name,
            "CARILLON_WORKER_HOST": LOOPBACK,
            "CARILLON_WORKER_PORT": str(port),
            "CARILLON_WORKER_ADDRESS": f"ws://{LOOPBACK}:{linked_port}",
        },
        stage=processes.BEHIND_THE_FRONT_DOOR,
        ready=_listens(port),
        start_timeout_s=LONG_HANG_S,
        grace_s=1,
    )


def _answers(database: str) -> Callable[[int], Awaitable[bool]]:
    async def ready(_: int) -> bool:
        try:
            await (await psycopg.AsyncConnection.connect(database)).close()
        except psycopg.OperationalError:
            return False
        return True

    return ready


def _listens(port: int) -> Callable[[int], Awaitable[bool]]:
    async def ready(_pid: int) -> bool:
        try:
            _, writer = await asyncio.open_connection(LOOPBACK, port)
        except OSError:
            return False
        writer.close()
        return True

    return ready
