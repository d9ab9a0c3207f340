"""Trains the stand-in's language model: a small Hugging Face Llama that reads a text and writes the codec's frames.

Examples are strung together from the code dictionary while it trains, so no sentence comes twice. Early steps see
short texts, from which following the text word by word is learnt first; later ones everything a chunk may hold.
"""

from __future__ import annotations

import itertools
import json
import logging
import math
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from training.standin.dictionary import CodeDictionary, Example, examples
from training.standin.sentences import SentenceSampler, vocabulary
from training.standin.speech import BUILT_IN_VOICES
from training.standin.tokens import Tokens, save_tokenizer

logger = logging.getLogger(__name__)

SHAPE: dict[str, Any] = {"num_hidden_layers": 3, "hidden_size": 320, "intermediate_size": 864, "num_attention_heads": 5}
MAX_POSITIONS = 4096
STEPS = 4500
PEAK_RATE = 2e-3
WARMUP_STEPS = 150
DECAY_SHARE = 0.35  # of the steps, at the end, with a falling rate
BATCH_TOKENS = 4096
SHUFFLED = 192  # examples drawn at a time, sorted by length into batches
CORRUPTED = 0.02  # share of input codes replaced at random, so that a mis-sampled code does not derail the reading
TEMPERATURE = 0.6


@dataclass(frozen=True)
class Phase:
    """Until `until` of all steps, each text has at most as many words as one entry of `max_words`."""

    until: float
    max_words: tuple[int, ...]


CURRICULUM = (Phase(0.15, (4, 8)), Phase(0.4, (4, 8, 16, 24)), Phase(1.0, (4, 8, 16, 32, 60)))


def configuration(tokens: Tokens) -> LlamaConfig:
    """The Llama's configuration with the `speech` entry that the engine reads."""
    configured = LlamaConfig(
        vocab_size=len(tokens),
        **SHAPE,
        num_key_value_heads=SHAPE["num_attention_heads"],
        head_dim=64,
        max_position_embeddings=MAX_POSITIONS,
        tie_word_embeddings=True,
        bos_token_id=tokens["<start_of_human>"],
        eos_token_id=tokens["<end_of_speech>"],
        pad_token_id=tokens["<pad>"],
    )
    configured.speech = tokens.speech_settings(BUILT_IN_VOICES)
    return configured


def batches(pool: Iterator[Example], draw: random.Random, pad: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of at most BATCH_TOKENS padded tokens: ids and targets, (batch, tokens); only answers have targets."""
    drawn = sorted(itertools.islice(pool, SHUFFLED), key=lambda example: len(example.ids))
    groups: list[list[Example]] = [[]]
    for example in drawn:
        if groups[-1] and (len(groups[-1]) + 1) * len(example.ids) > BATCH_TOKENS:
            groups.append([])
        groups[-1].append(example)
    draw.shuffle(groups)
    for group in groups:
        length = max(len(example.ids) for example in group)
        ids = torch.full((len(group), length), pad)
        targets = torch.full((len(group), length), -100)
        for row, example in enumerate(group):
            whole = torch.from_numpy(example.ids)
            ids[row, : len(whole)] = whole
            targets[row, example.answer_start : len(whole)] = whole[example.answer_start :]
        yield ids, targets


def corrupted(ids: Tensor, tokens: Tokens, generator: torch.Generator) -> Tensor:
    """`ids` with a share of the audio codes replaced by random codes of the same position in the frame."""
    code = ids - tokens.audio_base
    other = torch.randint(tokens.codebook_size, ids.shape, generator=generator)
    replaced = tokens.audio_base + code // tokens.codebook_size * tokens.codebook_size + other
    chosen = (torch.rand(ids.shape, generator=generator) < CORRUPTED) & (code >= 0)
    return torch.where(chosen, replaced, ids)


def endless_batches(
    dictionary: CodeDictionary, tokens: Tokens, first: int, steps: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches for steps `first`, `first + 1`, … by the curriculum; each pool of examples has its own seed."""
    sampler = SentenceSampler(tuple(vocabulary()))
    step = first
    for pool_number in itertools.count():
        phase = next(phase for phase in CURRICULUM if step / steps <= phase.until)
        draw = random.Random(f"pool-{first}-{pool_number}")
        pool = examples(dictionary, tokens, sampler, draw.getrandbits(48), phase.max_words)
        for batch in batches(pool, draw, tokens["<pad>"]):
            yield batch
            step += 1


def answer_loss(model: LlamaForCausalLM, ids: Tensor, targets: Tensor) -> Tensor:
    """Mean cross entropy over the answers' tokens; logits are made only where they count."""
    hidden = model.model(ids[:, :-1]).last_hidden_state  # (batch, tokens - 1, width)
    wanted = targets[:, 1:]
    chosen = wanted >= 0
    return functional.cross_entropy(model.lm_head(hidden[chosen]).float(), wanted[chosen])


def rate_at(step: int, steps: int) -> float:
    """Linear warm-up, then constant, then a linear decay to 1 % of the peak."""
    remaining = (steps - step) / (DECAY_SHARE * steps)
    return PEAK_RATE * min((step + 1) / WARMUP_STEPS, 1.0, 0.01 + 0.99 * remaining)


def train(work: Path, dictionary: CodeDictionary, tokens: Tokens, steps: int = STEPS) -> None:
    """Trains for `steps` steps in all, resuming from `work/language.pt`; exports to `work/model` at checkpoints."""
    # 1. Model
    torch.manual_seed(0)
    model = LlamaForCausalLM(configuration(tokens))
    optimiser = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    saved, first = work / "language.pt", 0
    if saved.exists():
        state = torch.load(saved, weights_only=True)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        first = state["step"]
    generator = torch.Generator().manual_seed(first)
    # 2. Steps
    began, heard, smoothed = time.monotonic(), 0, math.nan
    for step, (ids, targets) in zip(
        range(first, steps), endless_batches(dictionary, tokens, first, steps), strict=False
    ):
        for group in optimiser.param_groups:
            group["lr"] = rate_at(step, steps)
        with torch.autocast("cpu", torch.bfloat16):
            loss = answer_loss(model, corrupted(ids, tokens, generator), targets)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        heard += ids.numel()
        smoothed = loss.item() if math.isnan(smoothed) else 0.95 * smoothed + 0.05 * loss.item()
        if step % 25 == 0:
            pace = heard / (time.monotonic() - began)
            logger.info("language step %d loss %.4f tokens/s %.0f longest %d", step, smoothed, pace, ids.shape[1])
        # 3. Checkpoint
        if (step + 1) % 250 == 0 or step + 1 == steps:
            state = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "step": step + 1}
            unfinished = saved.with_suffix(".part")
            torch.save(state, unfinished)
            unfinished.replace(saved)
            export(model, tokens, work / "model")


def export(model: LlamaForCausalLM, tokens: Tokens, directory: Path) -> None:
    """Writes the Hugging Face model directory: bf16 safetensors, config with `speech`, tokenizer, sampling defaults."""
    directory.mkdir(parents=True, exist_ok=True)
    halved = LlamaForCausalLM(model.config).bfloat16()
    halved.load_state_dict(model.state_dict())
    halved.generation_config = GenerationConfig(
        do_sample=True,
        temperature=TEMPERATURE,
        top_p=1.0,
        repetition_penalty=1.0,
        bos_token_id=model.config.bos_token_id,
        eos_token_id=model.config.eos_token_id,
        pad_token_id=model.config.pad_token_id,
    )
    halved.save_pretrained(directory)
    save_tokenizer(tokens, directory)
    written = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    if written["speech"] != tokens.speech_settings(BUILT_IN_VOICES):
        raise ValueError("transformers dropped config.json's `speech` entry; the engine could not read this model")
