"""The real engine when it hangs, idles, or dies. The last test kills it; a later test has one loaded again."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from app.errors import EngineFailed
from tests.support.deadlines import LONG_HANG_S
from tests.support.engines import VOICE, SharedEngine
from tests.support.random_adapters import save_random_adapter
from workers.engine import EngineAdapter, Utterance
from workers.vllm_engine import VllmEngine

pytestmark = [pytest.mark.anyio, pytest.mark.engine]


async def speak(engine: VllmEngine) -> list[int]:
    said = engine.speak(Utterance(VOICE, "The bells ring twice.", temperature=0.0))
    return [code async for delta in said for code in delta.codes]


@pytest.mark.slow
async def test_an_engine_that_hangs_with_work_to_do_is_as_good_as_dead(
    engine: VllmEngine, shared_engine: SharedEngine
) -> None:
    watching = asyncio.create_task(engine.died())
    clock = shared_engine.clock
    shared_engine.core.suspend()
    clock.read = False
    speaking = asyncio.create_task(speak(engine))
    while not clock.read:
        await asyncio.sleep(0.01)
    assert not watching.done()
    clock.now_s += 61
    async with asyncio.timeout(LONG_HANG_S):
        assert "hangs" in await watching
    shared_engine.core.resume()
    assert await speaking, "it was not started again"


async def test_an_engine_without_work_may_do_nothing_for_as_long_as_it_likes(
    engine: VllmEngine, shared_engine: SharedEngine
) -> None:
    watching = asyncio.create_task(engine.died())
    shared_engine.clock.now_s += 3600
    assert await speak(engine)
    assert not watching.done()
    watching.cancel()


async def test_an_engine_that_dies_while_it_loads_an_adapter_fails_the_load(
    engine: VllmEngine, shared_engine: SharedEngine, tmp_path: Path
) -> None:
    adapter = EngineAdapter("eve@1", 31, save_random_adapter(tmp_path / "eve", seed=1))
    shared_engine.core.suspend()  # it takes the call, and never answers
    loading = asyncio.create_task(engine.load(adapter))
    await asyncio.sleep(0)
    shared_engine.core.kill()
    async with asyncio.timeout(LONG_HANG_S):
        with pytest.raises(EngineFailed, match="died"):
            await loading
