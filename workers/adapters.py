"""The worker's adapters: from the object store to local disk to the engine, least recently used ones making room.

An adapter in use is never evicted; one that is missing, damaged or of a kind vLLM refuses fails its own request alone,
before the engine has seen it. The module knows files and hashes; it does not know who speaks with a voice.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import shutil
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.core.errors import AdapterUnavailable, ObjectMissing
from app.core.models import AdapterVersion
from workers.engine import LORA_MODULES, Engine, EngineAdapter

log = logging.getLogger(__name__)

Fetch = Callable[[str, str, Path], None]
"""`fetch(uri, file, path)`: copy one file below an adapter's uri to a local path; blocking, raises CarillonError."""

_CONFIG = "adapter_config.json"


@dataclass
class _Resident:
    adapter: EngineAdapter
    users: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    loaded: bool = False


class AdapterCache:
    """Adapters on this worker, at most `max_resident` of them beyond those in use."""

    def __init__(self, engine: Engine, fetch: Fetch, directory: Path, *, max_resident: int, max_rank: int) -> None:
        self._engine = engine
        self._fetch = fetch
        self._directory = directory
        self._max_resident = max_resident
        self._max_rank = max_rank
        self._resident: OrderedDict[str, _Resident] = OrderedDict()

    @property
    def ready(self) -> frozenset[str]:
        """Voices whose adapter the engine holds now."""
        return frozenset(name.rpartition("@")[0] for name, resident in self._resident.items() if resident.loaded)

    @asynccontextmanager
    async def use(self, version: AdapterVersion) -> AsyncIterator[EngineAdapter]:
        """The adapter, loaded, for as long as the context lasts. Raises AdapterUnavailable.

        The first of several callers loads; the others wait for it, and try for themselves should it fail.
        """
        resident = self._resident.setdefault(
            version.name, _Resident(EngineAdapter(version.name, version.lora_id, self._directory / version.name))
        )
        self._resident.move_to_end(version.name)
        resident.users += 1
        try:
            async with resident.lock:
                if not resident.loaded:
                    await asyncio.to_thread(self._bring, version, resident.adapter.path)
                    await self._engine.load(resident.adapter)
                    resident.loaded = True
                    log.info("adapter loaded", extra={"adapter": version.name})
            await self._evict()
            yield resident.adapter
        finally:
            resident.users -= 1
            if not resident.loaded and not resident.users:
                self._resident.pop(version.name, None)

    async def _evict(self) -> None:
        spare = len(self._resident) - self._max_resident
        idle = [name for name, resident in self._resident.items() if not resident.users and resident.loaded]
        for name in idle[: max(0, spare)]:
            resident = self._resident.pop(name)
            await self._engine.unload(resident.adapter)
            await asyncio.to_thread(shutil.rmtree, resident.adapter.path, ignore_errors=True)
            log.info("adapter evicted", extra={"adapter": name})

    def _bring(self, version: AdapterVersion, path: Path) -> None:
        """Copy what is missing or damaged on disk, check every hash, and check that vLLM can serve it."""
        path.mkdir(parents=True, exist_ok=True)
        for name, expected in version.sha256.items():
            if Path(name).name != name:
                raise AdapterUnavailable(f"adapter {version.name} names a file {name!r} outside its directory")
            target = path / name
            if target.is_file() and _sha256(target) == expected:
                continue
            arriving = target.with_name(f"{name}.arriving")
            try:
                self._fetch(version.uri, name, arriving)
            except ObjectMissing as error:
                raise AdapterUnavailable(f"adapter {version.name}: {error.message}; publish it again") from error
            if (found := _sha256(arriving)) != expected:
                arriving.unlink()
                raise AdapterUnavailable(
                    f"adapter {version.name}: {name} has sha256 {found[:12]}…, its manifest says {expected[:12]}…; "
                    "publish it again"
                )
            arriving.replace(target)
        check_adapter(path, max_rank=self._max_rank)


def check_adapter(path: Path, *, max_rank: int) -> None:
    """Refuse an adapter directory that vLLM 0.32 would refuse, or die of, with the reason and the remedy.

    Sources: vllm/lora/peft_helper.py (modules_to_save, DoRA, bias, rank) and the modules slots are made for.
    Raises AdapterUnavailable.
    """
    try:
        config: dict[str, Any] = json.loads((path / _CONFIG).read_text("utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise AdapterUnavailable(f"{path.name}/{_CONFIG} cannot be read: {error}; save the adapter with PEFT") from None
    modules = config.get("target_modules") or []
    unknown = sorted(set([modules] if isinstance(modules, str) else modules) - set(LORA_MODULES))
    rank = config.get("r", 0)
    faults = {
        f"its modules_to_save are {config.get('modules_to_save')}": bool(config.get("modules_to_save")),
        "it uses DoRA": bool(config.get("use_dora")),
        f"it trains biases ({config.get('bias')})": config.get("bias", "none") != "none",
        f"its rank {rank} is outside 1…{max_rank} (CARILLON_ENGINE__MAX_LORA_RANK)": not 1 <= rank <= max_rank,
        f"it targets {', '.join(unknown)}": bool(unknown),
    }
    wrong = [fault for fault, present in faults.items() if present]
    if wrong:
        raise AdapterUnavailable(
            f"adapter {path.name} cannot be served: {'; '.join(wrong)}. "
            f"Train LoRA keys only, on {', '.join(LORA_MODULES)}"
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
