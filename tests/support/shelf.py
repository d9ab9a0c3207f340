"""Published adapters for tests of who caches them, and an engine as unforgiving as vLLM."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import itertools
import json
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from app.errors import CarillonError, ObjectMissing
from app.speech.token_layout import LORA_MODULES
from app.speech.voices import AdapterVersion
from tests.support.fakes import FakeEngine
from workers.adapters import AdapterCache
from workers.engine import EngineAdapter

CONFIG: dict[str, Any] = {"r": 16, "lora_alpha": 32, "target_modules": list(LORA_MODULES), "bias": "none"}


class Shelf:
    """Published adapters in a directory, and a count of what was fetched.

    `faults` are raised by the next fetches, one each, after half of the file has been written.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.fetched: list[str] = []
        self.faults: list[Exception] = []

    def publish(
        self, voice_id: str, *, version: int = 1, lora_id: int = 1, config: dict[str, Any] = CONFIG
    ) -> AdapterVersion:
        directory = self.root / voice_id / str(version) if version > 1 else self.root / voice_id
        directory.mkdir(parents=True)
        (directory / "adapter_config.json").write_text(json.dumps(config))
        (directory / "adapter_model.safetensors").write_bytes(voice_id.encode())
        hashes = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in directory.iterdir()}
        return AdapterVersion(
            voice_id=voice_id, version=version, lora_id=lora_id, uri=str(directory), sha256=hashes, rank=config["r"]
        )

    def fetch(self, uri: str, file: str, path: Path) -> None:
        source = Path(uri) / file
        if not source.is_file():
            raise ObjectMissing(f"{source} does not exist")
        with suppress(IndexError):  # fetches run in threads: to look and to take must be one
            fault = self.faults.pop(0)
            path.write_bytes(source.read_bytes()[:-1])
            raise fault
        self.fetched.append(file)
        path.write_bytes(source.read_bytes())


class SmallDisk(Shelf):
    """A shelf whose adapters go to a disk that holds `capacity` of them."""

    def __init__(self, root: Path, disk: Path, capacity: int) -> None:
        super().__init__(root)
        self.disk = disk
        self.capacity = capacity

    def fetch(self, uri: str, file: str, path: Path) -> None:
        others = [directory for directory in self.disk.iterdir() if directory != path.parent]
        if len(others) >= self.capacity:
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().fetch(uri, file, path)


class StrictEngine(FakeEngine):
    """An engine as unforgiving as vLLM: `held` are its adapters by name, and files it has not finished with must stay.

    `refusal` is raised by the next load, `unload_fault` by every unload; `before_load` is awaited in a load's middle.
    """

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[str, int] = {}
        self.refusal: CarillonError | None = None
        self.unload_fault: CarillonError | None = None
        self.before_load: Callable[[], Awaitable[object]] | None = None

    async def load(self, adapter: EngineAdapter) -> None:
        if self.before_load:
            await self.before_load()
        if self.refusal:
            refusal, self.refusal = self.refusal, None
            raise refusal
        assert adapter.lora_id not in self.held.values()
        await super().load(adapter)
        assert (adapter.path / "adapter_model.safetensors").is_file()
        self.held[adapter.name] = adapter.lora_id

    async def unload(self, adapter: EngineAdapter) -> None:
        await super().unload(adapter)
        if self.unload_fault:
            raise self.unload_fault
        self.held.pop(adapter.name)


class Clock:
    """Seconds that pass by themselves: each look is `step_s` later."""

    def __init__(self, step_s: float) -> None:
        self._looks = itertools.count(step=step_s)

    def __call__(self) -> float:
        return next(self._looks)


def cache(
    engine: FakeEngine, shelf: Shelf, tmp_path: Path, *, max_resident: int = 4, clock: Clock | None = None
) -> AdapterCache:
    return AdapterCache(
        engine,
        shelf.fetch,
        tmp_path / "cache",
        max_resident=max_resident,
        max_rank=16,
        patience_s=20,
        clock=clock or Clock(0.0),
        retry_interval_s=0,
    )


def on_disk(tmp_path: Path) -> set[str]:
    return {path.name for path in (tmp_path / "cache").iterdir()}


async def use_once(adapters: AdapterCache, version: AdapterVersion) -> None:
    async with adapters.use(version):
        pass


async def settled(adapters: AdapterCache) -> None:
    """Return when nothing is being loaded or removed."""
    while adapters._work:
        await asyncio.wait(adapters._work)
        await asyncio.sleep(0)
