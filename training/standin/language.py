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

import numpy as np
import torch
from snac import SNAC
from torch import Tensor
from torch.nn import functional
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from training.standin.dictionary import CodeDictionary, Example, examples, sound_features
from training.standin.sentences import SentenceSampler, vocabulary
from training.standin.speech import BUILT_IN_VOICES
from training.standin.tokens import FRAME_TOKENS, SPECIAL, Tokens, save_tokenizer

logger = logging.getLogger(__name__)

SHAPE: dict[str, Any] = {"num_hidden_layers": 3, "hidden_size": 320, "intermediate_size": 864, "num_attention_heads": 5}
MAX_POSITIONS = 4096
STEPS = 7000
PEAK_RATES = {"matrices": 3e-3, "rest": 1.1e-3}
WARMUP_STEPS = 100
DECAY_SHARE = 0.3  # of the steps, at the end, with falling rates
BATCH_TOKENS = 3072
SHUFFLED = 128  # examples drawn at a time, sorted by length into batches
CORRUPTED = (0.03, 0.4)  # least and greatest share of an example's input codes replaced at random
GUIDED_LAYERS, GUIDED_HEADS = (1, 2), 3  # the layers whose first heads are shown where to look
GUIDANCE_WEIGHT = 0.3
WORD_HASTE = 8.0
FIRST_FRAME_WEIGHT, FIRST_CODE_WEIGHT = 4.0, 5.0
TEMPERATURE = 0.6


@dataclass(frozen=True)
class Phase:
    """Until `until` of all steps, each text has at most as many words as one entry of `max_words`; some are skimmed."""

    until: float
    max_words: tuple[int, ...]
    skimmed_share: float

    def examples(self) -> dict[str, Any]:
        """The arguments of `dictionary.examples`."""
        return {"max_words": self.max_words, "skimmed_share": self.skimmed_share}


CURRICULUM = (Phase(0.8, (4, 8, 12), 0.75), Phase(1.0, (4, 8, 8, 12, 16, 40), 0.0))


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


@torch.no_grad()
def embed_sounds(model: Any, dictionary: CodeDictionary, codec: SNAC, tokens: Tokens) -> None:
    """Gives each whole word an embedding made from its sound: the half-whitened principal components of its features.

    Reading then begins as a smooth map from a word's embedding to its codes instead of thousands of things to memorise.
    """
    words = vocabulary()
    features = sound_features(dictionary, codec, words)  # (words, features)
    left, strength, _ = torch.linalg.svd(features, full_matrices=False)
    width = model.config.hidden_size
    components = left[:, :width] * strength[:width].sqrt()  # (words, width)
    rows = torch.tensor([tokens[word] for word in words])
    embedding = model.get_input_embeddings().weight
    embedding[rows] = components * (embedding.std() / components.std())


@dataclass(frozen=True)
class Batch:
    """Right-padded examples; every field is (batch, tokens) int64. Only answers have targets, others are -100."""

    ids: Tensor
    targets: Tensor
    read_from: Tensor
    read_to: Tensor


def batches(pool: Iterator[Example], draw: random.Random, pad: int) -> Iterator[Batch]:
    """SHUFFLED examples in batches of similar lengths and at most BATCH_TOKENS padded tokens."""
    drawn = sorted(itertools.islice(pool, SHUFFLED), key=lambda example: len(example.ids))
    groups: list[list[Example]] = [[]]
    for example in drawn:
        if groups[-1] and (len(groups[-1]) + 1) * len(example.ids) > BATCH_TOKENS:
            groups.append([])
        groups[-1].append(example)
    draw.shuffle(groups)
    for group in groups:
        shape = len(group), max(len(example.ids) for example in group)
        batch = Batch(torch.full(shape, pad), torch.full(shape, -100), *torch.zeros((2, *shape), dtype=torch.int64))
        for row, example in enumerate(group):
            length = len(example.ids)
            batch.ids[row, :length] = torch.from_numpy(example.ids)
            batch.targets[row, :length] = torch.from_numpy(np.where(example.counted, example.ids, -100))
            batch.read_from[row, :length] = torch.from_numpy(example.read_from)
            batch.read_to[row, :length] = torch.from_numpy(example.read_to)
        yield batch


def corrupted(ids: Tensor, tokens: Tokens, generator: torch.Generator) -> Tensor:
    """`ids` with some of the audio codes replaced by random codes of the same position in the frame.

    Half of the examples lose few, so that a mis-sampled code does not derail the reading. The others lose up to half of
    them: what a word sounds like must then be read from the text, since it cannot be overheard from its beginning.
    """
    code = ids - tokens.audio_base
    other = torch.randint(tokens.codebook_size, ids.shape, generator=generator)
    replaced = tokens.audio_base + code // tokens.codebook_size * tokens.codebook_size + other
    few, most = CORRUPTED
    share = few + (most - few) * (2 * torch.rand((len(ids), 1), generator=generator) - 1).clamp_min(0)
    chosen = (torch.rand(ids.shape, generator=generator) < share) & (code >= 0)
    return torch.where(chosen, replaced, ids)


def endless_batches(dictionary: CodeDictionary, tokens: Tokens, first: int, steps: int) -> Iterator[Batch]:
    """Batches for steps `first`, `first + 1`, … by the curriculum; each pool of examples has its own seed."""
    sampler = SentenceSampler(tuple(vocabulary()))
    step = first
    for pool_number in itertools.count():
        phase = next(phase for phase in CURRICULUM if step / steps <= phase.until)
        draw = random.Random(f"pool-{first}-{pool_number}")
        pool = examples(dictionary, tokens, sampler, draw.getrandbits(48), **phase.examples())
        for batch in batches(pool, draw, tokens["<pad>"]):
            yield batch
            step += 1


def onset_weights(batch: Batch) -> Tensor:
    """1, but more for the first frame of each word, and most for its first code: (batch, tokens) float32.

    That frame is where reading shows: later ones can be guessed from the ones before.
    """
    turned = batch.read_from[:, 1:] != batch.read_from[:, :-1]
    onset = functional.pad(turned & (batch.read_to[:, 1:] > 0), (1, 0)).float()
    frame = sum(onset.roll(position, dims=1) for position in range(FRAME_TOKENS))
    return 1 + (FIRST_CODE_WEIGHT - FIRST_FRAME_WEIGHT) * onset + (FIRST_FRAME_WEIGHT - 1) * frame


def losses(model: Any, batch: Batch, heard: Tensor, tokens: Tokens) -> tuple[Tensor, Tensor]:
    """Weighted mean cross entropy over the answers, and how far the guided heads look from the word being voiced.

    `heard` is `batch.ids` with some codes corrupted: the model's input. The softmax is over what the band mask allows
    at each position of a frame, as the engine samples, which also leaves text out of it: embeddings are tied, and the
    faint "not this word" of every step would drown what tells the words' embeddings apart.
    """
    read = model.model(heard[:, :-1], output_hidden_states=True)
    wanted, weights = batch.targets[:, 1:], onset_weights(batch)[:, 1:]
    rows, size = model.lm_head.weight, tokens.codebook_size
    end = tokens["<end_of_speech>"]
    entropy, weight = torch.zeros(()), torch.zeros(())
    for position in range(FRAME_TOKENS):
        first = tokens.audio_base + position * size
        here = (wanted >= first) & (wanted < first + size)
        band = rows[first : first + size]
        if position == 0:  # a frame, or the end
            here, band = here | (wanted == end), torch.cat([band, rows[end : end + 1]])
        spoken = wanted[here]
        numbers = torch.where(spoken == end, size, spoken - first)
        logits = functional.linear(read.last_hidden_state[here], band).float()  # (tokens here, codes [+ 1])
        entropy = entropy + (functional.cross_entropy(logits, numbers, reduction="none") * weights[here]).sum()
        weight = weight + weights[here].sum()
    guidance = [guided_attention_loss(model, read.hidden_states[layer], layer, batch) for layer in GUIDED_LAYERS]
    return entropy / weight, torch.stack(guidance).mean()


def guided_attention_loss(model: Any, hidden: Tensor, layer_number: int, batch: Batch) -> Tensor:
    """Minus the log of the first heads' attention on the text that the next token voices, where it voices any.

    The idea is guided attention (Tachibana et al. 2017): nothing forces it on the finished model, but a reader that is
    shown where to look learns to read soon, and one that is not may only learn the sound of words. Every third
    token is enough. `hidden` is the layer's input, (batch, tokens - 1, width).
    """
    layer = model.model.layers[layer_number]
    normed = layer.input_layernorm(hidden)
    width = model.config.head_dim
    query, key = (
        functional.linear(normed, projection.weight[: GUIDED_HEADS * width]).unflatten(2, (GUIDED_HEADS, width))
        for projection in (layer.self_attn.q_proj, layer.self_attn.k_proj)
    )  # each (batch, tokens - 1, heads, width of a head)
    where = torch.arange(hidden.shape[1])[None]
    turned = apply_rotary_pos_emb(query.transpose(1, 2), key.transpose(1, 2), *model.model.rotary_emb(normed, where))
    asked = torch.arange(random.randrange(3), hidden.shape[1], 3)
    scores = (turned[0][:, :, asked] @ turned[1].transpose(2, 3)).float() / math.sqrt(width)
    scores = scores.masked_fill(where > asked[:, None], -torch.inf)  # (batch, heads, asked, tokens - 1)
    first, after = batch.read_from[:, asked + 1], batch.read_to[:, asked + 1]  # (batch, asked)
    elsewhere = (where < first[..., None]) | (where >= after[..., None])  # (batch, asked, tokens - 1)
    voicing = after > first
    missed = scores.logsumexp(-1) - scores.masked_fill(elsewhere[:, None], -torch.inf).logsumexp(-1)
    weights = onset_weights(batch)[:, asked + 1][voicing]
    return (missed.transpose(0, 1)[:, voicing] * weights).sum() / (GUIDED_HEADS * weights.sum()).clamp_min(1)


def rate_share(step: int, steps: int) -> float:
    """Of the peak rates: linear warm-up, then constant, then a linear decay to 1 %."""
    remaining = (steps - step) / (DECAY_SHARE * steps)
    return min((step + 1) / WARMUP_STEPS, 1.0, 0.01 + 0.99 * remaining)


def optimisers(model: Any) -> dict[str, torch.optim.Optimizer]:
    """Muon for the layers' matrices, AdamW for embeddings and norms.

    Muon (Jordan et al. 2024) learns rare associations, here which word sounds how, in about half of AdamW's steps
    (measured: after 400, 30 % of words' first frames are right instead of 17 %).
    """
    named = dict(model.named_parameters())
    matrices = [weight for name, weight in named.items() if weight.ndim == 2 and "embed" not in name]
    rest = [weight for name, weight in named.items() if weight.ndim != 2 or "embed" in name]
    muon = torch.optim.Muon(matrices, lr=PEAK_RATES["matrices"], weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
    return {
        "matrices": muon,
        "rest": torch.optim.AdamW(rest, lr=PEAK_RATES["rest"], betas=(0.9, 0.98), weight_decay=0.01, fused=True),
    }


def train(work: Path, dictionary: CodeDictionary, codec: SNAC, steps: int = STEPS) -> None:
    """Trains for `steps` steps in all, resuming from `work/language.pt`; exports to `work/model` at checkpoints."""
    # 1. Model
    torch.manual_seed(0)
    tokens = Tokens(codec.codebook_size)
    model = LlamaForCausalLM(configuration(tokens))
    embed_sounds(model, dictionary, codec, tokens)
    chosen = optimisers(model)
    saved, first = work / "language.pt", 0
    if saved.exists():
        state = torch.load(saved, weights_only=True)
        model.load_state_dict(state["model"])
        for name, optimiser in chosen.items():
            optimiser.load_state_dict(state[name])
        first = state["step"]
    generator = torch.Generator().manual_seed(first)
    words = model.model.embed_tokens.weight[len(SPECIAL) : tokens.audio_base]
    # 2. Steps
    began, heard, smoothed = time.monotonic(), 0, math.nan
    for step, batch in zip(range(first, steps), endless_batches(dictionary, tokens, first, steps), strict=False):
        for name, optimiser in chosen.items():
            optimiser.param_groups[0]["lr"] = PEAK_RATES[name] * rate_share(step, steps)
        with torch.autocast("cpu", torch.bfloat16):
            loss, guidance = losses(model, batch, corrupted(batch.ids, tokens, generator), tokens)
        model.zero_grad(set_to_none=True)
        (loss + GUIDANCE_WEIGHT * guidance).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        _step(chosen, words)
        heard += batch.ids.numel()
        smoothed = loss.item() if math.isnan(smoothed) else 0.95 * smoothed + 0.05 * loss.item()
        if step % 25 == 0:
            pace = heard / (time.monotonic() - began)
            figures = (step, smoothed, guidance.item(), pace, batch.ids.shape[1])
            logger.info("language step %d loss %.4f guidance %.3f tokens/s %.0f longest %d", *figures)
        # 3. Checkpoint
        if (step + 1) % 250 == 0 or step + 1 == steps:
            state = {"model": model.state_dict(), "step": step + 1}
            state |= {name: optimiser.state_dict() for name, optimiser in chosen.items()}
            unfinished = saved.with_suffix(".part")
            torch.save(state, unfinished)
            unfinished.replace(saved)
            export(model, tokens, work / "model")


@torch.no_grad()
def _step(chosen: dict[str, torch.optim.Optimizer], words: Tensor) -> None:
    """One step, in which the text's embeddings go WORD_HASTE times as far: a word is seen once in many steps."""
    before = words.clone()
    for optimiser in chosen.values():
        optimiser.step()
    words.add_(words - before, alpha=WORD_HASTE - 1)


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
