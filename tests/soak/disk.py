"""Disks that programs have to themselves, small enough to be filled: in memory, where this user may mount one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

SIZE_MB = 256
BALLAST = "ballast"


class Disk:
    """One that is mounted at `directory`."""

    def __init__(self, directory: Path) -> None:
        self._ballast = directory / BALLAST

    def fill(self) -> None:
        """Take what room is left."""
        directory = os.statvfs(self._ballast.parent)
        with self._ballast.open("wb") as ballast, suppress(OSError):
            os.posix_fallocate(ballast.fileno(), 0, directory.f_bavail * directory.f_frsize)

    def empty(self) -> None:
        self._ballast.unlink(missing_ok=True)


@contextmanager
def small_disks(directories: Mapping[str, Path]) -> Iterator[dict[str, Disk]]:
    """A disk at each of these directories; none where this user may not mount."""
    mounted: dict[str, Disk] = {}
    try:
        for name, directory in directories.items():
            directory.mkdir(parents=True, exist_ok=True)
            if not _mounted(directory):
                break
            mounted[name] = Disk(directory)
        yield mounted
    finally:
        for name in mounted:
            subprocess.run(["umount", "--lazy", str(directories[name])], check=True)


def _mounted(directory: Path) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MB}m,mode=0700", "carillon-soak", str(directory)]
    return os.geteuid() == 0 and subprocess.run(command, check=False, capture_output=True).returncode == 0
