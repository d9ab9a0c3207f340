"""Adapters in the real engine: several versions in one batch, versions that follow each other, and bad weights."""

from __future__ import annotations

import asyncio
import itertools
import json
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from app.errors import AdapterUnavailable
from app.speech.token_layout import TOKENS_PER_FRAME
from tests.support.engines import VOICE
from tests.support.random_adapters import save_random_adapter
from workers.engine import EngineAdapter, Utterance
from workers.vllm_engine import VllmEngine

pytestmark = [pytest.mark.anyio, pytest.mark.engine]

CHURN_S = 0.03
"""Between two adapters that are loaded."""

TEXT = "The bells ring twice."


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Random adapters by seed."""
    root = tmp_path_factory.mktemp("adapters")
    return {seed: save_random_adapter(root / str(seed), seed=seed) for seed in (1, 2)}


async def speak(engine: VllmEngine, adapter: EngineAdapter | None, text: str = TEXT) -> list[int]:
    """Greedy codes, in frame order."""
    said = engine.speak(Utterance(VOICE, text, adapter=adapter, temperature=0.0))
    return [code async for delta in said for code in delta.codes]


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
async def test_two_voices_keep_their_own_sound_while_others_are_loaded_into_their_slots(
    engine: VllmEngine, weights: dict[int, Path]
) -> None:
    """https://github.com/vllm-project/vllm/issues/47724 and 38606 report another voice's sound after such evictions."""
    voices = [EngineAdapter("eve@1", 31, weights[1]), EngineAdapter("fay@1", 32, weights[2])]
    others = [EngineAdapter(f"other{number}@1", 40 + number, weights[1 + number % 2]) for number in range(6)]
    alone = [await speak_with(engine, adapter) for adapter in voices]
    loads = 0

    async def churn() -> None:
        nonlocal loads
        for adapter in itertools.cycle(others):
            await engine.load(adapter)
            loads += 1
            await asyncio.sleep(CHURN_S)

    churning = asyncio.create_task(churn())
    together = await asyncio.gather(*(speak(engine, adapter) for adapter in voices * 2))
    churning.cancel()
    await asyncio.gather(churning, return_exceptions=True)
    for adapter in others:
        await engine.unload(adapter)
    assert loads > len(others)  # every slot has been taken several times
    assert together == alone * 2


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
