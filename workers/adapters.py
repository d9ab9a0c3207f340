"""The worker's cache of LoRA adapters with LRU eviction: from the object store to local disk to the engine.

An adapter in use is never evicted; one that is missing, damaged or of a kind vLLM refuses fails its own request alone,
before the engine has seen it, and leaves nothing behind. What a deleted voice has here goes as soon as no session uses
it. The module knows files and hashes; it does not know sessions.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import logging
import shutil
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.errors import AdapterUnavailable, CarillonError, ObjectMissing, StoreUnavailable, UnknownVoice
from app.speech.token_layout import LORA_MODULES
from app.speech.voices import AdapterVersion
from workers.engine import Engine, EngineAdapter

log = logging.getLogger(__name__)

Fetch = Callable[[str, str, Path], None]
"""`fetch(uri, file, path)`: copy one file below an adapter's uri to a local path; blocking, raises CarillonError."""

_CONFIG = "adapter_config.json"
_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


@dataclass(eq=False)
class _Resident:
    """One version here. It is on disk and in the engine while `loaded`; `work` is the load or the removal under way."""

    version: AdapterVersion
    adapter: EngineAdapter
    users: int = 0
    loaded: bool = False
    work: asyncio.Task[None] | None = None

    @property
    def idle(self) -> bool:
        return self.loaded and not self.users and self.work is None


@dataclass
class AdapterStats:
    """Counters since the start. A use hits when its adapter is loaded; else it stalls until that is."""

    hits: int = 0
    stalls: int = 0
    stall_s: float = 0.0
    loads: int = 0
    evictions: int = 0
    failures: int = 0


class AdapterCache:
    """The adapters on this worker: at most `max_resident`, unless more are in use at once."""

    def __init__(
        self,
        engine: Engine,
        fetch: Fetch,
        directory: Path,
        *,
        max_resident: int,
        max_rank: int,
        patience_s: float,
        clock: Callable[[], float],
        retry_interval_s: float = 0.5,
    ) -> None:
        """A store that does not answer is retried every `retry_interval_s`, for `patience_s` in all."""
        self._engine = engine
        self._fetch = fetch
        self._directory = directory
        self._max_resident = max_resident
        self._max_rank = max_rank
        self._patience_s = patience_s
        self._clock = clock
        self._retry_interval_s = retry_interval_s
        self._residents: OrderedDict[str, _Resident] = OrderedDict()
        self._retired: set[str] = set()
        self._room = asyncio.Lock()
        self._work: set[asyncio.Task[None]] = set()
        self.stats = AdapterStats()

    @property
    def ready(self) -> frozenset[str]:
        """Names of the adapters that the engine holds now."""
        return frozenset(name for name, resident in self._residents.items() if resident.loaded)

    @asynccontextmanager
    async def use(self, version: AdapterVersion) -> AsyncIterator[EngineAdapter]:
        """The adapter, loaded, for as long as the context lasts.

        The first of several callers loads, the others share what comes of it. A caller that goes away meanwhile leaves
        the load to finish: a thread that writes files cannot be stopped half-way. Raises UnknownVoice if the voice is
        deleted, AdapterUnavailable, StoreUnavailable, or EngineFailed.
        """
        self._refuse_retired(version)
        resident = self._resident(version)
        resident.users += 1
        try:
            if resident.loaded:
                self.stats.hits += 1
            else:
                await self._stall(resident)
            self._refuse_retired(version)
            yield resident.adapter
        finally:
            resident.users -= 1
            self._clean_up(resident)

    async def _stall(self, resident: _Resident) -> None:
        """Wait until it is loaded."""
        self.stats.stalls += 1
        began_at = self._clock()
        try:
            while not resident.loaded:
                await asyncio.shield(resident.work or self._begin(resident, self._load))
        finally:
            self.stats.stall_s += self._clock() - began_at

    def retire(self, voice_id: str) -> None:
        """The voice is deleted: no session starts with it any more, and what is here of it goes when its last user
        does.

        Returns at once. A voice id never comes back.
        """
        self._retired.add(voice_id)
        for resident in list(self._residents.values()):
            self._clean_up(resident)

    async def aclose(self) -> None:
        """Give up what is being loaded. The engine ends next, and the next start of the worker wipes the directory."""
        while self._work:  # a load that is given up may begin a removal
            for work in self._work:
                work.cancel()
            await asyncio.gather(*self._work, return_exceptions=True)

    def _refuse_retired(self, version: AdapterVersion) -> None:
        if version.voice_id in self._retired:
            raise UnknownVoice(f"the voice {version.voice_id} has been deleted", param="voice")

    def _resident(self, version: AdapterVersion) -> _Resident:
        """The version's entry, now the most recently used.

        Raises AdapterUnavailable for a version that contradicts one that is here, which happens when the catalogue is
        restored from an older copy and counts again: vLLM tells adapters apart by name and id alone, and would speak
        with the weights it has.
        """
        if Path(version.name).name != version.name:
            raise AdapterUnavailable(f"adapter {version.name!r} would lie outside the worker's directory")
        for resident in self._residents.values():
            here = resident.version
            same = here.name == version.name
            if (here.lora_id == version.lora_id) != same or (same and here.sha256 != version.sha256):
                raise AdapterUnavailable(
                    f"adapter {version.name} (id {version.lora_id}) contradicts {here.name} (id {here.lora_id}), which "
                    "is loaded here: published versions never change; restart the workers if the catalogue was restored"
                )
        path = self._directory / version.name
        resident = self._residents.setdefault(
            version.name, _Resident(version, EngineAdapter(version.name, version.lora_id, path))
        )
        self._residents.move_to_end(version.name)
        return resident

    def _begin(self, resident: _Resident, job: Callable[[_Resident], Awaitable[None]]) -> asyncio.Task[None]:
        """Do one thing at a time with a resident, to its end, even if no caller waits for it."""

        async def work() -> None:
            try:
                await job(resident)
            finally:
                resident.work = None
                self._clean_up(resident)

        task = resident.work = asyncio.create_task(work(), name=f"adapter {resident.version.name}")
        self._work.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, work: asyncio.Task[None]) -> None:
        self._work.discard(work)
        # Logged here: the caller may have left.
        if not work.cancelled() and (error := work.exception()):
            self.stats.failures += 1
            log.warning("adapter failed", extra={"work": work.get_name(), "error": str(error)})

    def _clean_up(self, resident: _Resident) -> None:
        """After a use or a piece of work: what is not needed any more goes."""
        if resident.users or resident.work is not None:
            return
        if not resident.loaded:
            self._residents.pop(resident.version.name, None)
        elif resident.version.voice_id in self._retired:
            self._dismiss(resident)

    def _dismiss(self, resident: _Resident) -> asyncio.Task[None]:
        """Begin to remove an idle one. It counts as gone from now on: a new user waits, and loads it again."""
        resident.loaded = False
        return self._begin(resident, self._remove)

    async def _load(self, resident: _Resident) -> None:
        try:
            await self._bring(resident)
            # One at a time: two that make room for one each would count the same one twice.
            async with self._room:
                await self._make_room()
                await self._engine.load(resident.adapter)
        except BaseException:
            await asyncio.to_thread(shutil.rmtree, resident.adapter.path, ignore_errors=True)
            raise
        resident.loaded = True
        self.stats.loads += 1
        log.info("adapter loaded", extra={"adapter": resident.version.name})

    async def _remove(self, resident: _Resident) -> None:
        """Out of the engine and off the disk."""
        try:
            await self._engine.unload(resident.adapter)
        except CarillonError as error:  # the engine's death is reported elsewhere
            log.warning("adapter not unloaded", extra={"adapter": resident.version.name, "error": error.message})
        finally:
            await asyncio.to_thread(shutil.rmtree, resident.adapter.path, ignore_errors=True)
        log.info("adapter removed", extra={"adapter": resident.version.name})

    async def _make_room(self) -> None:
        while sum(resident.loaded for resident in self._residents.values()) >= self._max_resident:
            if not await self._evict():
                return

    async def _evict(self) -> bool:
        """Remove the idle one used longest ago; False if there is none."""
        oldest = next((resident for resident in self._residents.values() if resident.idle), None)
        if oldest is None:
            return False
        self.stats.evictions += 1
        await asyncio.shield(self._dismiss(oldest))
        return True

    async def _bring(self, resident: _Resident) -> None:
        """Put the adapter on disk: retry a store that is away, evict others from a disk that is full.

        Raises AdapterUnavailable, or StoreUnavailable once the patience is at an end, or no caller waits any more.
        """
        name, path = resident.version.name, resident.adapter.path
        deadline = self._clock() + self._patience_s
        while True:
            try:
                return await asyncio.to_thread(self._copy, resident.version, path)
            except StoreUnavailable as error:
                if not resident.users or self._clock() + self._retry_interval_s > deadline:
                    raise
                log.warning("store retried for an adapter", extra={"adapter": name, "error": error.message})
                await asyncio.sleep(self._retry_interval_s)
            except OSError as error:
                if error.errno not in _DISK_FULL:
                    raise AdapterUnavailable(
                        f"adapter {name} cannot be written below {self._directory} ({error.strerror}); "
                        "mend CARILLON_DATA_DIR on the worker"
                    ) from error
                if not await self._evict():
                    raise AdapterUnavailable(
                        f"adapter {name} does not fit: the worker's disk at {self._directory} is full, and every other "
                        "adapter on it is in use; free space there, or move CARILLON_DATA_DIR to a larger disk"
                    ) from error

    def _copy(self, version: AdapterVersion, path: Path) -> None:
        """Copy what is missing or damaged on disk, check every hash, and check that vLLM can serve it.

        Blocks. Raises OSError when the disk fails.
        """
        path.mkdir(parents=True, exist_ok=True)
        for name, expected in version.sha256.items():
            if Path(name).name != name or name == "..":
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
