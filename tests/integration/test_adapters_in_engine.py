"""Adapters in the real engine: several versions in one batch, versions that follow each other, and bad weights."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
from safetensors.torch import load_file, save_file

from app.core.errors import AdapterUnavailable, EngineFailed
from app.core.orpheus import TOKENS_PER_FRAME, read_layout
from app.infra.settings import STAND_IN, EngineSettings
from tests.deadlines import LONG_HANG_S
from tests.integration.random_adapters import save_random_adapter
from workers.engine import EngineAdapter, Utterance, VllmEngine

pytestmark = [pytest.mark.anyio, pytest.mark.engine]

LAYOUT = read_layout(STAND_IN / "model", STAND_IN / "codec")
VOICE = LAYOUT.speech.voices[0]
SLOTS = 2
TEXT = "The bells ring twice in the morning."


class Clock:
    """Stands still; `asked` says that somebody has looked since the engine began to work."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.asked = False

    def __call__(self) -> float:
        self.asked = True
        return self.now_s


@pytest.fixture(scope="module")
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
async def engine(clock: Clock) -> AsyncIterator[VllmEngine]:
    """In float32, so that a batch of another size does not round otherwise and tip a greedy choice."""
    settings = EngineSettings(max_loras=SLOTS, max_cpu_loras=SLOTS, dtype="float32")
    engine = VllmEngine(STAND_IN / "model", LAYOUT, settings, capacity=6, device="cpu", clock=clock)
    await engine.start()
    yield engine
    await engine.aclose()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Random adapters by seed."""
    root = tmp_path_factory.mktemp("adapters")
    return {seed: save_random_adapter(root / str(seed), seed=seed) for seed in (1, 2)}


async def speak(engine: VllmEngine, adapter: EngineAdapter | None, text: str = TEXT) -> list[int]:
    """Greedy codes, in frame order."""
    said = engine.speak(Utterance(VOICE, text, adapter=adapter, temperature=0.0))
    return [code async for delta in said for code in delta.codes]


async def test_voices_of_several_versions_in_one_batch_sound_as_each_does_alone(
    engine: VllmEngine, weights: dict[int, Path]
) -> None:
    voices = [None, EngineAdapter("ada@1", 1, weights[1]), EngineAdapter("ada@2", 2, weights[2])]
    for adapter in filter(None, voices):
        await engine.load(adapter)
    alone = [await speak(engine, adapter) for adapter in voices]
    assert all(len(codes) >= 10 * TOKENS_PER_FRAME for codes in alone)
    assert len({tuple(codes) for codes in alone}) == len(voices)

    most_at_once = 0

    async def watch() -> None:
        nonlocal most_at_once
        while True:
            most_at_once = max(most_at_once, engine.load_now().running)
            await asyncio.sleep(0)

    watching = asyncio.create_task(watch())
    together = await asyncio.gather(*(speak(engine, adapter) for adapter in voices * 2))
    watching.cancel()

    assert most_at_once == 2 * len(voices)
    assert together == alone * 2


async def test_a_new_version_does_not_speak_with_the_weights_of_the_old_one(
    engine: VllmEngine, weights: dict[int, Path]
) -> None:
    first, second = EngineAdapter("bob@1", 11, weights[1]), EngineAdapter("bob@2", 12, weights[2])
    await engine.load(first)
    old = await speak(engine, first)
    await engine.unload(first)
    await engine.load(second)
    new = await speak(engine, second)
    # The same weights under another name and id: what the version's own weights say.
    assert new == await speak_with(engine, EngineAdapter("carl@1", 13, weights[2]))
    assert old == await speak_with(engine, EngineAdapter("carl@2", 14, weights[1]))
    assert new != old


async def speak_with(engine: VllmEngine, adapter: EngineAdapter) -> list[int]:
    await engine.load(adapter)
    return await speak(engine, adapter)


async def test_weights_that_belie_their_rank_are_refused_every_time_and_hurt_nobody(
    engine: VllmEngine, weights: dict[int, Path], tmp_path: Path
) -> None:
    good = EngineAdapter("dora@1", 21, weights[1])
    await engine.load(good)
    expected = await speak(engine, good)
    liar = EngineAdapter("liar@1", 22, belying(weights[2], tmp_path / "liar"))

    speaking = asyncio.create_task(speak(engine, good))
    for _ in range(2):
        with pytest.raises(AdapterUnavailable, match=r"liar@1 does not load"):
            await engine.load(liar)
    assert await speaking == expected
    assert await speak(engine, good) == expected


def belying(source: Path, path: Path) -> Path:
    """A copy of an adapter whose later tensors are of twice the rank that its config names."""
    path.mkdir()
    tensors = load_file(source / "adapter_model.safetensors")
    for name in sorted(tensors)[len(tensors) // 2 :]:
        tensors[name] = tensors[name].repeat(*((2, 1) if "lora_A" in name else (1, 2)))
    save_file(tensors, path / "adapter_model.safetensors")
    config = json.loads((source / "adapter_config.json").read_text("utf-8"))
    (path / "adapter_config.json").write_text(json.dumps(config))
    return path


def core_of() -> psutil.Process:
    """The process that the engine computes in."""
    return max(psutil.Process().children(recursive=True), key=lambda process: process.memory_info().rss)


async def test_an_engine_that_hangs_with_work_to_do_is_as_good_as_dead(engine: VllmEngine, clock: Clock) -> None:
    watching = asyncio.create_task(engine.died())
    core = core_of()
    core.suspend()
    clock.asked = False
    speaking = asyncio.create_task(speak(engine, None))
    while not clock.asked:
        await asyncio.sleep(0.01)
    assert not watching.done()
    clock.now_s += 61
    async with asyncio.timeout(LONG_HANG_S):
        assert "hangs" in await watching
    core.resume()
    assert await speaking, "nobody was there to start it anew"


async def test_an_engine_without_work_may_do_nothing_for_as_long_as_it_likes(engine: VllmEngine, clock: Clock) -> None:
    watching = asyncio.create_task(engine.died())
    clock.now_s += 3600
    assert await speak(engine, None)
    assert not watching.done()
    watching.cancel()


async def test_an_engine_that_dies_while_it_loads_an_adapter_fails_the_load(
    engine: VllmEngine, weights: dict[int, Path]
) -> None:
    """The last of the module: nothing speaks afterwards."""
    core = core_of()
    core.suspend()  # it takes the call, and never answers
    loading = asyncio.create_task(engine.load(EngineAdapter("eve@1", 31, weights[1])))
    await asyncio.sleep(0)
    core.kill()
    async with asyncio.timeout(LONG_HANG_S):
        with pytest.raises(EngineFailed, match="died"):
            await loading
