"""The worker's adapter cache where a store is away, a disk full, or an engine fails: no other session is hurt."""

from __future__ import annotations

import asyncio
import errno
import threading
from pathlib import Path

import pytest

from app.errors import AdapterUnavailable, EngineFailed, StoreUnavailable
from tests.support.deadlines import HANG_S
from tests.support.shelf import Clock, Shelf, SmallDisk, StrictEngine, cache, on_disk, settled, use_once

pytestmark = pytest.mark.anyio


async def test_a_store_that_is_away_is_retried_until_it_is_back(
    shelf: Shelf, engine: StrictEngine, tmp_path: Path
) -> None:
    adapters, version = cache(engine, shelf, tmp_path, clock=Clock(1.0)), shelf.publish("ada")
    shelf.faults = [StoreUnavailable("away")] * 15
    async with adapters.use(version) as adapter:
        assert (adapter.path / "adapter_model.safetensors").read_bytes() == b"ada"
    assert not shelf.faults


async def test_a_store_that_stays_away_fails_all_callers_at_once_and_leaves_nothing(
    shelf: Shelf, engine: StrictEngine, tmp_path: Path
) -> None:
    adapters, version = cache(engine, shelf, tmp_path, clock=Clock(1.0)), shelf.publish("ada")
    shelf.faults = [StoreUnavailable("away") for _ in range(60)]
    answers = await asyncio.gather(*(use_once(adapters, version) for _ in range(3)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [StoreUnavailable] * 3
    assert 15 <= 60 - len(shelf.faults) <= 25, "three callers, and one patience for all of them"
    assert on_disk(tmp_path) == set()
    shelf.faults.clear()
    await use_once(adapters, version)
    assert adapters.ready == {"ada@1"}


async def test_a_store_is_not_retried_without_a_caller(shelf: Shelf, engine: StrictEngine, tmp_path: Path) -> None:
    adapters, version = cache(engine, shelf, tmp_path), shelf.publish("ada")
    called = threading.Event()

    def away(uri: str, file: str, path: Path) -> None:
        called.set()
        raise StoreUnavailable("away")

    adapters._fetch = away
    impatient = asyncio.create_task(use_once(adapters, version))
    await asyncio.to_thread(called.wait, 10)
    impatient.cancel()
    await asyncio.wait([impatient])
    async with asyncio.timeout(HANG_S):
        await settled(adapters)
    assert not adapters._residents


async def test_a_full_disk_gives_up_unused_adapters_the_oldest_first(engine: StrictEngine, tmp_path: Path) -> None:
    disk = SmallDisk(tmp_path / "store", tmp_path / "cache", capacity=2)
    adapters = cache(engine, disk, tmp_path)
    a, b, c = (disk.publish(name, lora_id=number) for number, name in enumerate("abc", start=1))
    for version in (a, b, a):
        await use_once(adapters, version)
    async with adapters.use(c) as adapter:
        assert {file.name for file in adapter.path.iterdir()} == set(c.sha256)
    assert engine.unloaded == ["b@1"]
    assert on_disk(tmp_path) == {"a@1", "c@1"} == set(engine.held)


async def test_a_disk_full_of_adapters_in_use_fails_the_newcomer_alone(engine: StrictEngine, tmp_path: Path) -> None:
    disk = SmallDisk(tmp_path / "store", tmp_path / "cache", capacity=1)
    adapters = cache(engine, disk, tmp_path)
    a, b = disk.publish("a", lora_id=1), disk.publish("b", lora_id=2)
    async with adapters.use(a) as adapter:
        with pytest.raises(AdapterUnavailable, match=r"disk .* is full.*CARILLON_DATA_DIR"):
            await use_once(adapters, b)
        assert {file.name for file in adapter.path.iterdir()} == set(a.sha256)
        assert on_disk(tmp_path) == {"a@1"}
        assert engine.held == {"a@1": 1}
    await use_once(adapters, b)
    assert on_disk(tmp_path) == {"b@1"}


async def test_a_disk_that_cannot_be_written_is_named(shelf: Shelf, engine: StrictEngine, tmp_path: Path) -> None:
    adapters, version = cache(engine, shelf, tmp_path), shelf.publish("ada")
    shelf.faults = [OSError(errno.EROFS, "Read-only file system")]
    with pytest.raises(AdapterUnavailable, match=r"Read-only file system.*CARILLON_DATA_DIR"):
        await use_once(adapters, version)


async def test_a_use_that_is_cancelled_or_fails_lets_go_of_its_adapter(
    shelf: Shelf, engine: StrictEngine, tmp_path: Path
) -> None:
    adapters = cache(engine, shelf, tmp_path, max_resident=1)
    a, b = shelf.publish("a", lora_id=1), shelf.publish("b", lora_id=2)
    speaking = asyncio.Event()

    async def speak_for_ever() -> None:
        async with adapters.use(a):
            speaking.set()
            await asyncio.Event().wait()

    async def speak_and_fail() -> None:
        async with adapters.use(a):
            raise EngineFailed("mid-word")

    doomed = asyncio.create_task(speak_for_ever())
    await speaking.wait()
    with pytest.raises(EngineFailed):
        await speak_and_fail()
    await use_once(adapters, b)
    assert "a@1" in adapters.ready, "a session still uses it"
    doomed.cancel()
    await asyncio.wait([doomed])
    async with adapters.use(b):
        pass
    await use_once(adapters, shelf.publish("c", lora_id=3))
    assert adapters.ready == {"c@1"}


async def test_an_adapter_that_the_engine_refuses_leaves_nothing_and_may_come_again(
    shelf: Shelf, engine: StrictEngine, tmp_path: Path
) -> None:
    adapters, version = cache(engine, shelf, tmp_path), shelf.publish("ada")
    engine.refusal = AdapterUnavailable("a tensor of another shape")
    with pytest.raises(AdapterUnavailable, match="another shape"):
        await use_once(adapters, version)
    assert on_disk(tmp_path) == set()
    await use_once(adapters, version)
    assert adapters.ready == {"ada@1"}


async def test_an_unload_that_fails_hurts_nobody(shelf: Shelf, engine: StrictEngine, tmp_path: Path) -> None:
    adapters = cache(engine, shelf, tmp_path, max_resident=1)
    a, b = shelf.publish("a", lora_id=1), shelf.publish("b", lora_id=2)
    await use_once(adapters, a)
    engine.unload_fault = EngineFailed("not now")
    await use_once(adapters, b)
    assert adapters.ready == {"b@1"}
    assert on_disk(tmp_path) == {"b@1"}


async def test_an_engine_that_dies_while_loading_is_reported_to_its_callers(
    shelf: Shelf, engine: StrictEngine, tmp_path: Path
) -> None:
    adapters, version = cache(engine, shelf, tmp_path), shelf.publish("ada")
    engine.refusal = EngineFailed("the engine died")
    with pytest.raises(EngineFailed):
        await use_once(adapters, version)
    assert not adapters.ready


async def test_a_load_that_never_ends_does_not_keep_the_worker_from_ending(
    shelf: Shelf, engine: StrictEngine, tmp_path: Path
) -> None:
    adapters, version = cache(engine, shelf, tmp_path), shelf.publish("ada")
    loading = asyncio.Event()

    async def hang() -> None:
        loading.set()
        await asyncio.Event().wait()

    engine.before_load = hang
    waiting = asyncio.create_task(use_once(adapters, version))
    await loading.wait()
    async with asyncio.timeout(HANG_S):
        await adapters.aclose()
    await asyncio.wait([waiting], timeout=HANG_S)
    assert waiting.cancelled()
