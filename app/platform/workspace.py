"""Directories for the files of one piece of work, gone when it is done. What a killed process left is removed later."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

STALE_S = 24 * 3600.0
"""Another process may be using the same parent; no work takes so long."""


@asynccontextmanager
async def workspace(parent: Path) -> AsyncIterator[Path]:
    """A new directory below `parent`, gone with the context."""
    parent.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(dir=parent))
    try:
        yield directory
    finally:
        await asyncio.shield(asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True))


def remove_stale(parent: Path) -> None:
    """Remove the directories that a killed process has left. Blocks."""
    for directory in parent.iterdir() if parent.is_dir() else ():
        if time.time() - directory.stat().st_mtime > STALE_S:
            shutil.rmtree(directory, ignore_errors=True)
