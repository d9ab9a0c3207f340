"""The run file of `carillon up` in its data directory, and its exclusive lock."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from app.errors import ConfigurationError
from app.local.supervisor import Supervisor
from app.platform.data_dir import read_run_file, write_private


class RunFile:
    """`run.json` in the data directory: what runs where, for other commands and operators. It holds no secret."""

    def __init__(self, path: Path, report: Callable[[str], None]) -> None:
        self.path = path
        self.facts: dict[str, object] = {}
        self._report = report
        self._reported = False

    def write(self, supervisor: Supervisor) -> None:
        running = {
            child.program.name: {"state": child.state, "pid": child.pid, "incarnation": child.incarnation}
            for child in supervisor.children.values()
        }
        try:
            write_private(self.path, json.dumps({"pid": os.getpid(), **self.facts, "programs": running}, indent=2))
        except OSError as error:
            if not self._reported:
                self._report(f"{self.path} cannot be written ({error.strerror}); the programs run on")
            self._reported = True


@contextmanager
def locked(data_dir: Path) -> Iterator[None]:
    """Lock `data_dir` for this process. Raises ConfigurationError naming the process that holds it."""
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (data_dir / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            running = read_run_file(data_dir) or {}
            raise ConfigurationError(
                f"{data_dir} is in use by another `carillon up` (process {running.get('pid', 'unknown')}, "
                f"{running.get('api', 'still starting')}); stop that one, or set CARILLON_DATA_DIR to another directory"
            ) from None
        yield
