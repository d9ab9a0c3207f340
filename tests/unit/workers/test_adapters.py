"""The worker's adapter cache: files with hashes on disk, a scripted engine."""

from __future__ import annotations

import asyncio
import errno
import json
import random
from pathlib import Path
from typing import Any

import pytest

from app.errors import AdapterUnavailable, CarillonError, ObjectMissing, StoreUnavailable, UnknownVoice
from app.speech.voices import AdapterVersion
from tests.support.shelf import CONFIG, Shelf, StrictEngine, cache, on_disk, settled, use_once
from workers.adapters import check_adapter

pytestmark = pytest.mark.anyio


async def test_an_adapter_is_fetched_and_loaded_once_for_many_callers(
    shelf: Shelf, engine: StrictEngine, tmp_path: Path
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


async def test_what_lies_whole_on_disk_is_not_fetched_again(shelf: Shelf, engine: StrictEngine, tmp_path: Path) -> None:
    version = shelf.publish("ada")
    await use_once(cache(engine, shelf, tmp_path), version)
    await use_once(cache(StrictEngine(), shelf, tmp_path), version)
    assert len(shelf.fetched) == 2


@pytest.mark.parametrize("damage", [b"rot", b"ad", b""], ids=["rotten", "truncated", "empty"])
async def test_a_file_damaged_on_disk_is_fetched_again(damage: bytes, shelf: Shelf, tmp_path: Path) -> None:
    version = shelf.publish("ada")
    async with cache(StrictEngine(), shelf, tmp_path).use(version) as adapter:
        weights = adapter.path / "adapter_model.safetensors"
        weights.write_bytes(damage)
        weights.with_name(f"{weights.name}.arriving").write_bytes(b"left half-way by a crash")
    async with cache(StrictEngine(), shelf, tmp_path).use(version) as adapter:
        assert {file.name: file.read_bytes() for file in adapter.path.iterdir()}.keys() == version.sha256.keys()
        assert weights.read_bytes() == b"ada"


async def test_a_file_that_differs_from_its_manifest_never_reaches_the_engine(
    shelf: Shelf, engine: StrictEngine, tmp_path: Path
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
    shelf: Shelf, engine: StrictEngine, tmp_path: Path
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
    shelf: Shelf, engine: StrictEngine, tmp_path: Path
) -> None:
    adapters = cache(engine, shelf, tmp_path, max_resident=2)
    versions = [shelf.publish(name, lora_id=number) for number, name in enumerate(("a", "b", "c"), start=1)]
    async with adapters.use(versions[0]):
        async with adapters.use(versions[1]):
            pass
        async with adapters.use(versions[2]):
            assert engine.unloaded == ["b@1"]
    assert adapters.ready == {"a@1", "c@1"}


async def test_a_caller_for_an_adapter_that_is_being_evicted_loads_it_again(
    shelf: Shelf, engine: StrictEngine, tmp_path: Path
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


async def test_a_caller_that_leaves_meanwhile_lets_the_load_finish_for_the_next(
    shelf: Shelf, engine: StrictEngine, tmp_path: Path
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


async def test_a_retired_voice_that_is_not_used_goes_at_once_with_every_version(
    shelf: Shelf, engine: StrictEngine, tmp_path: Path
) -> None:
    adapters = cache(engine, shelf, tmp_path)
    first, second = shelf.publish("ada"), shelf.publish("ada", version=2, lora_id=2)
    other = shelf.publish("bob", lora_id=3)
    for version in (first, second, other):
        await use_once(adapters, version)
    adapters.retire("ada")
    adapters.retire("never seen here")
    await settled(adapters)
    assert engine.held == {"bob@1": 3}
    assert on_disk(tmp_path) == {"bob@1"} == adapters.ready


async def test_a_session_with_a_retired_voice_finishes_and_none_begins(
    shelf: Shelf, engine: StrictEngine, tmp_path: Path
) -> None:
    adapters = cache(engine, shelf, tmp_path)
    version, newer = shelf.publish("ada"), shelf.publish("ada", version=2, lora_id=2)
    async with adapters.use(version):
        async with adapters.use(version):
            adapters.retire("ada")
        await settled(adapters)
        assert engine.held == {"ada@1": 1}
        for refused in (version, newer):
            with pytest.raises(UnknownVoice, match="deleted"):
                await use_once(adapters, refused)
    await settled(adapters)
    assert not engine.held
    assert on_disk(tmp_path) == set()


async def test_a_voice_retired_while_it_loads_is_refused_and_dropped(
    shelf: Shelf, engine: StrictEngine, tmp_path: Path
) -> None:
    adapters, version = cache(engine, shelf, tmp_path), shelf.publish("ada")
    loading, go_on = asyncio.Event(), asyncio.Event()

    async def slowly() -> None:
        loading.set()
        await go_on.wait()

    engine.before_load = slowly
    waiting = asyncio.create_task(use_once(adapters, version))
    await loading.wait()
    adapters.retire("ada")
    go_on.set()
    with pytest.raises(UnknownVoice):
        await waiting
    await settled(adapters)
    assert not engine.held
    assert on_disk(tmp_path) == set()


async def test_a_version_that_contradicts_one_here_is_refused(
    shelf: Shelf, engine: StrictEngine, tmp_path: Path
) -> None:
    # vLLM takes a known id for loaded whatever its path, and dies of one name under two ids.
    adapters, version = cache(engine, shelf, tmp_path), shelf.publish("ada", lora_id=7)
    await use_once(adapters, version)
    another_id = version.model_copy(update={"lora_id": 8})
    other_content = version.model_copy(update={"sha256": {"adapter_config.json": "0" * 64}})
    for contradiction in (shelf.publish("bob", lora_id=7), another_id, other_content):
        with pytest.raises(AdapterUnavailable, match="contradicts ada@1"):
            await use_once(adapters, contradiction)
    await use_once(adapters, version)


@pytest.mark.parametrize("seed", range(6))
async def test_whatever_happens_an_adapter_in_use_is_whole_and_what_is_deleted_goes(
    seed: int, shelf: Shelf, engine: StrictEngine, tmp_path: Path
) -> None:
    draw = random.Random(seed)
    adapters = cache(engine, shelf, tmp_path, max_resident=2)
    versions = [shelf.publish(name, lora_id=number) for number, name in enumerate("abcdef", start=1)]
    faults = (StoreUnavailable("away"), OSError(errno.ENOSPC, "full"), ObjectMissing("gone"))

    async def speak(version: AdapterVersion) -> None:
        try:
            async with adapters.use(version) as adapter:
                for _ in range(draw.randrange(4)):
                    assert engine.held.get(adapter.name) == adapter.lora_id
                    assert {file.name for file in adapter.path.iterdir()} == set(version.sha256)
                    await asyncio.sleep(0)
        except CarillonError:
            pass

    tasks: list[asyncio.Task[None]] = []
    for _ in range(120):
        tasks.append(asyncio.create_task(speak(draw.choice(versions))))
        match draw.randrange(12):
            case 0:
                shelf.faults.append(draw.choice(faults))
            case 1:
                engine.refusal = AdapterUnavailable("refused")
            case 2 | 3:
                draw.choice(tasks).cancel()
            case 4 if draw.random() < 0.5:
                adapters.retire(draw.choice("ab"))
        await asyncio.sleep(0.001 * draw.randrange(3))
    adapters.retire("a")
    for task in await asyncio.gather(*tasks, return_exceptions=True):
        assert task is None or isinstance(task, asyncio.CancelledError), task
    await settled(adapters)

    assert set(engine.held) == adapters.ready == on_disk(tmp_path) == set(adapters._residents)
    assert "a@1" not in engine.held
    assert all(not resident.users and resident.work is None for resident in adapters._residents.values())


async def test_a_manifest_cannot_name_a_file_outside_its_directory(
    shelf: Shelf, engine: StrictEngine, tmp_path: Path
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
