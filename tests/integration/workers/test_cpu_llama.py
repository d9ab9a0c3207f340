"""The lean forward pass in the real engine, beside the same weights in transformers and PEFT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.platform.settings import STAND_IN
from app.speech.token_layout import TOKENS_PER_FRAME
from tests.support.engines import LAYOUT, VOICE
from tests.support.random_adapters import save_random_adapter
from workers.engine import EngineAdapter, Utterance
from workers.vllm_engine import VllmEngine

pytestmark = [pytest.mark.anyio, pytest.mark.engine]

TEXT = "The bells ring twice in the morning."
FRAMES = 8


def reference(prompt: list[int], adapter: Path | None) -> list[int]:
    """The codes of the first frames, greedy, in float32, by transformers."""
    import torch
    from peft import PeftModel
    from transformers import LlamaForCausalLM

    model: Any = LlamaForCausalLM.from_pretrained(STAND_IN / "model", dtype=torch.float32)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, str(adapter))
    ids, cache, codes = torch.tensor([prompt]), None, []
    with torch.inference_mode():
        for position in range(FRAMES * TOKENS_PER_FRAME):
            output = model(input_ids=ids, past_key_values=cache, use_cache=True)
            start, stop = LAYOUT.band(position)
            codes.append(int(output.logits[0, -1, start:stop].argmax()))
            ids, cache = torch.tensor([[LAYOUT.token(codes[-1], position)]]), output.past_key_values
    return codes


async def beginning(engine: VllmEngine, utterance: Utterance) -> list[int]:
    codes = [code async for delta in engine.speak(utterance) for code in delta.codes]
    return codes[: FRAMES * TOKENS_PER_FRAME]


async def test_a_base_voice_says_what_transformers_says(engine: VllmEngine) -> None:
    utterance = Utterance(VOICE, TEXT, temperature=0.0)
    assert await beginning(engine, utterance) == reference(engine._prompt(utterance), None)


async def test_a_clone_says_what_peft_says(engine: VllmEngine, tmp_path: Path) -> None:
    path = save_random_adapter(tmp_path / "ada", seed=1)
    adapter = EngineAdapter("ada@lean", 701, path)
    await engine.load(adapter)
    utterance = Utterance(VOICE, TEXT, temperature=0.0, adapter=adapter)
    spoken = await beginning(engine, utterance)
    assert spoken == reference(engine._prompt(utterance), path)[: len(spoken)]
    await engine.unload(adapter)
