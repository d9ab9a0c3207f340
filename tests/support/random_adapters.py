"""Adapters with random weights: they change what the stand-in says, and nobody has to train them."""

from __future__ import annotations

from pathlib import Path

from app.platform.settings import STAND_IN
from app.speech.token_layout import LORA_MODULES


def save_random_adapter(path: Path, seed: int) -> Path:
    """A LoRA of the stand-in that changes what is said: random weights on every projection."""
    import torch  # here and below: who only collects the tests shall not wait for it
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaForCausalLM

    torch.manual_seed(seed)
    model = LlamaForCausalLM.from_pretrained(STAND_IN / "model")
    config = LoraConfig(r=16, lora_alpha=32, target_modules=list(LORA_MODULES), init_lora_weights=False)
    get_peft_model(model, config).save_pretrained(str(path), save_embedding_layers=False)
    return path
