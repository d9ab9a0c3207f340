"""A voice model of a few thousand random weights, and clips that it can learn: what a trainer's tests need."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from app.speech.token_layout import TOKENS_PER_FRAME, TokenLayout, read_layout

CODEBOOK_SIZE = 8
AUDIO_BASE = 20
VOCABULARY = AUDIO_BASE + TOKENS_PER_FRAME * CODEBOOK_SIZE
ROLES = ("pad", "start_of_text", "end_of_text", "start_of_human", "end_of_human", "start_of_ai", "end_of_ai")
SPEECH: dict[str, Any] = {
    "name": "tiny",
    "voices": ["one"],
    "audio_token_base": AUDIO_BASE,
    **{f"{role}_id": number for number, role in enumerate((*ROLES, "start_of_speech", "end_of_speech"))},
}


def save_tiny_voice(directory: Path, *, vocabulary_size: int = VOCABULARY) -> tuple[Path, Path]:
    """Writes `model/` (without a tokenizer) and the codec's configuration: both directories."""
    from transformers import LlamaConfig, LlamaForCausalLM  # seconds of imports

    model, codec = directory / "model", directory / "codec"
    config = LlamaConfig(
        vocab_size=vocabulary_size,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=256,
        initializer_range=0.4,
        tie_word_embeddings=True,
    )
    config.speech = SPEECH
    torch.manual_seed(1)
    LlamaForCausalLM(config).save_pretrained(model)
    codec.mkdir()
    (codec / "config.json").write_text(json.dumps({"codebook_size": CODEBOOK_SIZE}))
    return model, codec


def clip_ids(layout: TokenLayout, text: Sequence[int], frames: int) -> tuple[list[int], int]:
    """A clip that says the first token of its text all along, and where its answer starts."""
    prompt = layout.prompt(text)
    code = text[0] % layout.codebook_size
    codes = [layout.band(position)[0] + code for position in range(frames * TOKENS_PER_FRAME)]
    return [*prompt, *codes, layout.end_id, layout.speech.end_of_ai_id], len(prompt)


def save_clips(path: Path, clips: Sequence[tuple[list[int], int]]) -> None:
    """A dataset file of clips named `clip-0`, `clip-1`, …"""
    np.savez(
        path,
        ids=np.array([token for ids, _ in clips for token in ids], dtype=np.int32),
        lengths=np.array([len(ids) for ids, _ in clips], dtype=np.int64),
        answer_starts=np.array([start for _, start in clips], dtype=np.int64),
        names=np.array([f"clip-{number}" for number in range(len(clips))], dtype=np.str_),
    )


def save_run(directory: Path, model: Path, codec: Path, *, clips: int = 14, frames: int = 2, **train: Any) -> Path:
    """A run's directory, ready to train: clips of unequal lengths and different texts."""
    directory.mkdir(parents=True, exist_ok=True)
    layout = read_layout(model, codec)
    texts = [[9 + number % 8, 9 + number // 8] for number in range(clips)]
    save_clips(directory / "dataset.npz", [clip_ids(layout, text, frames + n % 4) for n, text in enumerate(texts)])
    run = {"model_dir": str(model), "codec_dir": str(codec), "prompt_name": "two", "device": "cpu"}
    (directory / "run.json").write_text(json.dumps(run | {"train": train}))
    return directory
