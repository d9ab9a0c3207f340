"""The worker's adapter cache: files with hashes on disk, a scripted engine."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from app.core.errors import AdapterUnavailable
from app.core.models import AdapterVersion
from tests.fakes import FakeEngine
from workers.adapters import AdapterCache, check_adapter
from workers.engine import LORA_MODULES

pytestmark = pytest.mark.anyio

CONFIG: dict[str, Any] = {"r": 16, "lora_alpha": 32, "target_modules": list(LORA_MODULES), "bias": "none"}


class Shelf:
    """Published adapters in a directory, and a count of what was fetched."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.fetched: list[str] = []

    def publish(self, voice_id: str, *, lora_id: int = 1, config: dict[str, Any] = CONFIG) -> AdapterVersion:
        directory = self.root / voice_id
        directory.mkdir(parents=True)
        (directory / "adapter_config.json").write_text(json.dumps(config))
        (directory / "adapter_model.safetensors").write_bytes(voice_id.encode())
        hashes = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in directory.iterdir()}
        return AdapterVersion(
            voice_id=voice_id, version=1, lora_id=lora_id, uri=str(directory), sha256=hashes, rank=config["r"]
        )

    def fetch(self, uri: str, file: str, path: Path) -> None:
        source = Path(uri) / file
        if not source.is_file():
            raise AdapterUnavailable(f"{source} does not exist")
        self.fetched.append(file)
        path.write_bytes(source.read_bytes())


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "store")


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


def cache(engine: FakeEngine, shelf: Shelf, tmp_path: Path, *, max_resident: int = 4) -> AdapterCache:
    return AdapterCache(engine, shelf.fetch, tmp_path / "cache", max_resident=max_resident, max_rank=16)


async def test_an_adapter_is_fetched_and_loaded_once_for_many_callers(
    shelf: Shelf, engine: FakeEngine, tmp_path: Path
) -> None:
    adapters, version = cache(engine, shelf, tmp_path), shelf.publish("ada")

    async def speak() -> None:
        async with adapters.use(version) as adapter:
            assert (adapter.path / "adapter_model.safetensors").read_bytes() == b"ada"
            await asyncio.sleep(0)

    await asyncio.gather(*(speak() for _ in range(5)))

    assert engine.loaded == ["ada@1"]
    assert len(shelf.fetched) == 2
    assert adapters.ready == {"ada@1"}


async def test_what_lies_whole_on_disk_is_not_fetched_again(shelf: Shelf, engine: FakeEngine, tmp_path: Path) -> None:
    version = shelf.publish("ada")
    async with cache(engine, shelf, tmp_path).use(version):
        pass
    async with cache(engine, shelf, tmp_path).use(version):
        pass
    assert len(shelf.fetched) == 2


async def test_a_file_damaged_on_disk_is_fetched_again(shelf: Shelf, engine: FakeEngine, tmp_path: Path) -> None:
    version = shelf.publish("ada")
    async with cache(engine, shelf, tmp_path).use(version) as adapter:
        (adapter.path / "adapter_model.safetensors").write_bytes(b"rot")
    async with cache(engine, shelf, tmp_path).use(version) as adapter:
        assert (adapter.path / "adapter_model.safetensors").read_bytes() == b"ada"


async def test_a_file_that_differs_from_its_manifest_never_reaches_the_engine(
    shelf: Shelf, engine: FakeEngine, tmp_path: Path
) -> None:
    version = shelf.publish("ada")
    (shelf.root / "ada" / "adapter_model.safetensors").write_bytes(b"something else")
    adapters = cache(engine, shelf, tmp_path)
    with pytest.raises(AdapterUnavailable, match="sha256"):
        async with adapters.use(version):
            pass
    assert not engine.loaded
    assert not adapters.ready


async def test_a_missing_adapter_fails_its_caller_and_later_comes_well(
    shelf: Shelf, engine: FakeEngine, tmp_path: Path
) -> None:
    version = shelf.publish("ada")
    away = shelf.root / "away"
    (shelf.root / "ada").rename(away)
    adapters = cache(engine, shelf, tmp_path)
    with pytest.raises(AdapterUnavailable):
        async with adapters.use(version):
            pass
    away.rename(shelf.root / "ada")
    async with adapters.use(version):
        assert engine.loaded == ["ada@1"]


async def test_the_least_recently_used_makes_room_but_never_one_in_use(
    shelf: Shelf, engine: FakeEngine, tmp_path: Path
) -> None:
    adapters = cache(engine, shelf, tmp_path, max_resident=2)
    versions = [shelf.publish(name, lora_id=number) for number, name in enumerate(("a", "b", "c"), start=1)]
    async with adapters.use(versions[0]):
        async with adapters.use(versions[1]):
            pass
        async with adapters.use(versions[2]):
            assert engine.unloaded == ["b@1"]
    assert adapters.ready == {"a@1", "c@1"}


async def test_who_comes_for_an_adapter_that_is_being_evicted_loads_it_anew(
    shelf: Shelf, engine: FakeEngine, tmp_path: Path
) -> None:
    adapters = cache(engine, shelf, tmp_path, max_resident=1)
    a, b = shelf.publish("a", lora_id=1), shelf.publish("b", lora_id=2)
    async with adapters.use(a):
        pass
    unloading = asyncio.Event()
    engine.before_unload = unloading.wait

    async def speak(version: AdapterVersion) -> None:
        async with adapters.use(version) as adapter:
            assert (adapter.path / "adapter_config.json").is_file()
            assert version.name in adapters.ready

    newcomer = asyncio.create_task(speak(b))
    while not engine.unloaded:
        await asyncio.sleep(0)
    returning = asyncio.create_task(speak(a))
    await asyncio.sleep(0)
    unloading.set()
    await asyncio.gather(newcomer, returning)

    assert engine.loaded.count("a@1") == 2


async def test_a_caller_who_leaves_meanwhile_lets_the_load_finish_for_the_next(
    shelf: Shelf, engine: FakeEngine, tmp_path: Path
) -> None:
    adapters, version = cache(engine, shelf, tmp_path), shelf.publish("ada")
    impatient = asyncio.create_task(adapters.use(version).__aenter__())
    await asyncio.sleep(0)
    impatient.cancel()
    await asyncio.wait([impatient])
    async with adapters.use(version):
        pass
    await adapters.aclose()
    assert engine.loaded == ["ada@1"]


async def test_a_manifest_cannot_name_a_file_outside_its_directory(
    shelf: Shelf, engine: FakeEngine, tmp_path: Path
) -> None:
    version = shelf.publish("ada").model_copy(update={"sha256": {"../escape": "0" * 64}})
    with pytest.raises(AdapterUnavailable, match="outside"):
        async with cache(engine, shelf, tmp_path).use(version):
            pass
    assert not (tmp_path / "cache" / "escape").exists()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"use_dora": True}, "DoRA"),
        ({"bias": "all"}, "biases"),
        ({"r": 32}, "rank 32 is outside 1…16"),
        ({"r": None}, "rank None is outside"),
        ({"target_modules": ["q_proj", "embed_tokens"]}, "embed_tokens"),
    ],
)
def test_an_adapter_the_engine_would_refuse_is_refused_before_it(
    change: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps(CONFIG | change))
    with pytest.raises(AdapterUnavailable, match=reason):
        check_adapter(tmp_path, max_rank=16)


def test_a_directory_that_is_no_adapter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AdapterUnavailable, match="cannot be read"):
        check_adapter(tmp_path, max_rank=16)
