"""The services that operators bring, started from Debian's packages or wheels: PostgreSQL, Valkey or Redis, another S3.

`make test-real` runs the api and integration tests on them. They listen on loopback and keep nothing.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from uuid import uuid4

import httpx
import psycopg
import pytest
from pydantic import SecretStr

from app.local.embedded import free_port
from app.platform.settings import StoreSettings
from tests.support.certificates import Certificates
from tests.support.deadlines import HANG_S

WANTED = os.environ.get("TEST_SERVICES") == "real"
"""Whether the tests shall run on these."""

needs_signatures = pytest.mark.skipif(WANTED, reason="moto, the other S3, checks no signatures")

POSTGRES_USER = "postgres"
"""Who runs PostgreSQL where the tests run as root, which it refuses to do."""

RULES = "~* &* +@all -@admin -@dangerous +info +flushdb +keys"
"""What a user of Carillon may do, and the tests besides: `flushdb`, `keys`."""


@dataclass(frozen=True)
class Postgres:
    """A running PostgreSQL."""

    port: int

    def url(self, name: str) -> str:
        return f"postgresql://carillon@127.0.0.1:{self.port}/{name}"

    @contextmanager
    def database(self, *, template: str = "template1", name: str | None = None) -> Iterator[str]:
        """The name of a new database, like `template`, dropped afterwards."""
        name = name or f"test_{uuid4().hex[:12]}"
        self._do(f"CREATE DATABASE {name} TEMPLATE {template}")
        try:
            yield name
        finally:
            self._do(f"DROP DATABASE {name} WITH (FORCE)")

    def _do(self, statement: str) -> None:
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement)  # type: ignore[arg-type]


def postgres_program(name: str) -> str | None:
    """Where Debian has it, or the path does."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(found[-1]) if found else shutil.which(name)


@dataclass(frozen=True)
class Cluster:
    """A PostgreSQL that can be started and started again: a directory, and the command that runs it.

    Without fsync: what it has committed survives its own death, and not the machine's.
    """

    command: list[str]
    running: Postgres

    @classmethod
    def make(cls, directory: Path) -> Cluster:
        """In `directory`. Where the tests run as root, another user runs it, who must be able to come there."""
        initdb, server = postgres_program("initdb"), postgres_program("postgres")
        assert initdb and server, "PostgreSQL is not here: apt-get install postgresql"
        lowered: list[str] = []
        if os.geteuid() == 0:
            user = pwd.getpwnam(POSTGRES_USER)
            os.chown(directory, user.pw_uid, user.pw_gid)
            lowered = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
        data, port = str(directory / "data"), free_port()
        making = [*lowered, initdb, "-D", data, "-U", "carillon", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "-N"]
        subprocess.run(making, check=True, capture_output=True, cwd=directory)
        options = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": "", "fsync": "off"}
        options |= {"max_connections": 300}
        words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        return cls([*lowered, server, "-D", data, *words], Postgres(port))


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """A cluster of its own."""
    directory = Path(tempfile.mkdtemp(prefix="carillon-postgres-"))
    cluster = Cluster.make(directory)
    process = subprocess.Popen(cluster.command, cwd=directory, stderr=subprocess.DEVNULL)
    try:
        running = cluster.running
        _until(lambda: psycopg.connect(running.url("postgres")).close(), psycopg.OperationalError)
        yield running
    finally:
        process.terminate()
        process.wait(HANG_S)
        shutil.rmtree(directory)


def redis_program() -> str | None:
    """One that speaks TLS: Valkey of Debian 13, or Redis of Debian 12."""
    return shutil.which("valkey-server") or shutil.which("redis-server")


@contextmanager
def running_secure_redis(directory: Path, certificates: Certificates) -> Iterator[str]:
    """Over TLS alone, without a default user; `SSL_CERT_FILE` has to name the authority. Yields its URL."""
    program = redis_program()
    assert program, "no Redis that speaks TLS is here: apt-get install redis-server"
    port = free_port()
    configuration = {
        "port": "0",
        "tls-port": str(port),
        "bind": "127.0.0.1",
        "save": '""',
        "dir": str(directory),
        "maxmemory-policy": "noeviction",
        "tls-cert-file": str(certificates.certificate),
        "tls-key-file": str(certificates.key),
        "tls-ca-cert-file": str(certificates.authority),
        "tls-auth-clients": "no",
        "user carillon": f"on >secret {RULES}",
        "user default": "off",
    }
    path = directory / "redis.conf"
    path.write_text("".join(f"{name} {value}\n" for name, value in configuration.items()))
    server = subprocess.Popen([program, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        for line in server.stdout:
            if "Ready to accept connections" in line:
                break
        yield f"rediss://carillon:secret@localhost:{port}/0"
    finally:
        server.terminate()
        server.communicate(timeout=HANG_S)


@contextmanager
def running_moto() -> Iterator[StoreSettings]:
    """Another S3 than the embedded one, which takes no notice of who asks."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        _until(lambda: httpx.get(url, trust_env=False), httpx.TransportError)
        yield StoreSettings(endpoint_url=url, access_key=SecretStr("access"), secret_key=SecretStr("secret"))
    finally:
        server.terminate()
        server.wait(HANG_S)


def _until(attempt: object, refused: type[Exception]) -> None:
    """Try until it is not refused."""
    give_up_at = monotonic() + HANG_S
    while True:
        try:
            attempt()  # type: ignore[operator]
            return
        except refused:
            if monotonic() > give_up_at:
                raise
            sleep(0.05)
