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
    """The adapters on this worker: at most `max_resident`, unless more are in use at once."""

    def __init__(self, engine: Engine, fetch: Fetch, directory: Path, *, max_resident: int, max_rank: int) -> None:
        self._engine = engine
        self._fetch = fetch
        self._directory = directory
        self._max_resident = max_resident
        self._max_rank = max_rank
        self._resident: OrderedDict[str, _Resident] = OrderedDict()
        self._loads: set[asyncio.Task[None]] = set()

    @property
    def ready(self) -> frozenset[str]:
        """Names of the adapters that the engine holds now."""
        return frozenset(name for name, resident in self._resident.items() if resident.loaded)

    @asynccontextmanager
    async def use(self, version: AdapterVersion) -> AsyncIterator[EngineAdapter]:
        """The adapter, loaded, for as long as the context lasts. Raises AdapterUnavailable.

        The first of several callers loads; the others wait for it, and try for themselves should it fail. A caller that
        goes away meanwhile leaves the load to finish: a thread that writes files cannot be stopped half-way.
        """
        resident = self._resident.setdefault(
            version.name, _Resident(EngineAdapter(version.name, version.lora_id, self._directory / version.name))
        )
        self._resident.move_to_end(version.name)
        resident.users += 1
        try:
            load = asyncio.create_task(self._load(resident, version), name=f"load {version.name}")
            self._loads.add(load)
            load.add_done_callback(self._loads.discard)
            await asyncio.shield(load)
            yield resident.adapter
        finally:
            resident.users -= 1
            self._forget_if_gone(resident)

    async def aclose(self) -> None:
        """Wait for loads that nobody waits for any more."""
        await asyncio.gather(*self._loads, return_exceptions=True)

    async def _load(self, resident: _Resident, version: AdapterVersion) -> None:
        async with resident.lock:
            if resident.loaded:
                return
            await asyncio.to_thread(self._bring, version, resident.adapter.path)
            await self._make_room()
            await self._engine.load(resident.adapter)
            resident.loaded = True
            log.info("adapter loaded", extra={"adapter": version.name})

    async def _make_room(self) -> None:
        """Unload those used longest ago, until the rest fit. Who comes for one meanwhile waits, and loads it anew."""
        for name, resident in list(self._resident.items()):
            if len(self._resident) <= self._max_resident:
                return
            if resident.users or resident.lock.locked() or self._resident.get(name) is not resident:
                continue
            async with resident.lock:
                resident.loaded = False
                await self._engine.unload(resident.adapter)
                await asyncio.to_thread(shutil.rmtree, resident.adapter.path, ignore_errors=True)
            self._forget_if_gone(resident)
            log.info("adapter evicted", extra={"adapter": name})

    def _forget_if_gone(self, resident: _Resident) -> None:
        if not (resident.loaded or resident.users or resident.lock.locked()):
            self._resident.pop(resident.adapter.name, None)

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
    config = _read_config(path)
    modules = config.get("target_modules") or []
    unknown = sorted(set([modules] if isinstance(modules, str) else modules) - set(LORA_MODULES))
    rank = config.get("r")
    faults = {
        f"its modules_to_save are {config.get('modules_to_save')}": bool(config.get("modules_to_save")),
        "it uses DoRA": bool(config.get("use_dora")),
        f"it trains biases ({config.get('bias')})": config.get("bias", "none") != "none",
        f"its rank {rank} is outside 1…{max_rank} (CARILLON_ENGINE__MAX_LORA_RANK)": not isinstance(rank, int)
        or not 1 <= rank <= max_rank,
        f"it targets {', '.join(unknown)}": bool(unknown),
    }
    wrong = [fault for fault, present in faults.items() if present]
    if wrong:
        raise AdapterUnavailable(
            f"adapter {path.name} cannot be served: {'; '.join(wrong)}. "
            f"Train LoRA keys only, on {', '.join(LORA_MODULES)}"
        )


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads((path / _CONFIG).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise AdapterUnavailable(f"{path.name}/{_CONFIG} cannot be read: {error}; save the adapter with PEFT") from None
    if not isinstance(config, dict):
        raise AdapterUnavailable(f"{path.name}/{_CONFIG} is no JSON object; save the adapter with PEFT")
    return config


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
