"""Trains the stand-in's language model: a small Hugging Face Llama that reads phones and writes the codec's frames.

Examples are put together from utterances while it trains (`examples`). Early steps see short texts, from which
following the text phone by phone is learnt first; later ones everything a chunk may hold.
"""

from __future__ import annotations

import itertools
import json
import logging
import math
import random
import string
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from training.standin.base import BUILT_IN_VOICES, voices
from training.standin.examples import HEAD_FRAMES, Example, Voice, example
from training.standin.grid import silent_frame
from training.standin.latents import LatentSpace
from training.standin.muon import Muon
from training.standin.phonemes import FRAME_TOKENS, reading_tokenizer
from training.standin.progress import quick_multiplications, resumed, save
from training.standin.spelling import stored_rules
from training.standin.tokens import Tokens

logger = logging.getLogger(__name__)

SHAPE: dict[str, Any] = {"num_hidden_layers": 3, "hidden_size": 320, "intermediate_size": 864, "num_attention_heads": 5}
MAX_POSITIONS = 4096
STEPS = 3200
PEAK_RATES = {"matrices": 3e-3, "rest": 1.5e-3}
WARMUP_STEPS = 100
DECAY_SHARE = 0.6  # of the steps, at the end, with falling rates
BATCH_TOKENS = 3072
SHUFFLED = 160  # examples drawn at a time, sorted by length into batches
CORRUPTED = (0.03, 0.35)  # least and greatest share of an example's input codes that are replaced,
NEIGHBOURS, NEAR_SHARE = 48, 0.75  # most of them by one of the codes nearest to them
GUIDED_LAYERS, GUIDED_HEADS = (1, 2), 2  # the layers whose first heads are shown where to look
GUIDANCE_WEIGHTS = ((0.3, 1.0), (0.5, 0.5), (1.0, 1.0))  # until a share of all steps; a long text is lost most easily
CODE_WEIGHTS = (3.0, 1.5, 0.8, 0.8, 1.5, 0.8, 0.8)  # of a frame: the first code tells the most
CODE_SIZE = 0.02  # of an embedding's numbers, on average
LEVEL_OF_POSITION = (0, 1, 2, 2, 1, 2, 2)
SAVED_EVERY = 100
TEMPERATURE = 0.3


@dataclass(frozen=True)
class Phase:
    """Until `until` of all steps each text has at most about as many words as one entry, after a head of frames."""

    until: float
    max_words: tuple[int, ...]
    head_frames: int


CURRICULUM = (
    Phase(0.2, (3, 6, 8), 1),
    Phase(0.4, (6, 10, 14), 1),
    Phase(1.0, (8, 12, 12, 16, 16, 24, 45), HEAD_FRAMES),
)


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
def embed_codes(model: Any, space: LatentSpace, tokens: Tokens) -> None:
    """Gives codes that sound alike embeddings that are alike: the same random turn of what they stand for.

    Which codes are near to each other, and what all positions of a level have in common, need not be learnt then.
    """
    draw = torch.Generator().manual_seed(0)
    embedding = model.get_input_embeddings().weight
    width, size = embedding.shape[1], tokens.codebook_size
    turns = [torch.randn(book.shape[1], width, generator=draw) / math.sqrt(book.shape[1]) for book in space.books]
    for position, level in enumerate(LEVEL_OF_POSITION):
        book, turn = space.books[level], turns[level]
        features = book / book.square().mean().sqrt()
        own = torch.randn(1, width, generator=draw)  # of the position
        noise = torch.randn(size, width, generator=draw)
        first = tokens.audio_base + position * size
        embedding[first : first + size] = CODE_SIZE * (0.8 * features @ turn + 0.3 * own + 0.5 * noise)


@dataclass(frozen=True)
class Batch:
    """Right-padded examples; every field is (batch, tokens) int64. Only answers have targets, others are -100."""

    ids: Tensor
    targets: Tensor
    read_from: Tensor
    read_to: Tensor


def batches(drawn: Sequence[Example], draw: random.Random, pad: int) -> Iterator[Batch]:
    """Examples in batches of similar lengths and at most BATCH_TOKENS padded tokens."""
    groups: list[list[Example]] = [[]]
    for one in sorted(drawn, key=lambda one: len(one.ids)):
        if groups[-1] and (len(groups[-1]) + 1) * len(one.ids) > BATCH_TOKENS:
            groups.append([])
        groups[-1].append(one)
    draw.shuffle(groups)
    for group in groups:
        shape = len(group), max(len(one.ids) for one in group)
        batch = Batch(torch.full(shape, pad), torch.full(shape, -100), *torch.zeros((2, *shape), dtype=torch.int64))
        for row, one in enumerate(group):
            length = len(one.ids)
            batch.ids[row, :length] = torch.from_numpy(one.ids)
            batch.targets[row, one.answer_start : length] = batch.ids[row, one.answer_start : length]
            batch.read_from[row, :length] = torch.from_numpy(one.read_from)
            batch.read_to[row, :length] = torch.from_numpy(one.read_to)
        yield batch


def neighbours(space: LatentSpace) -> Tensor:
    """The codes nearest to each code of each level: (levels, codes, NEIGHBOURS)."""
    count = min(NEIGHBOURS, space.books.shape[1] - 1)
    return torch.stack([torch.cdist(book, book).topk(count + 1, largest=False).indices[:, 1:] for book in space.books])


def corrupted(ids: Tensor, tokens: Tokens, near: Tensor, generator: torch.Generator) -> Tensor:
    """`ids` with some of the audio codes replaced by other codes of the same position in the frame; most are `near`.

    Half of the examples lose few, so that a mis-sampled code does not derail the reading. The others lose more of
    them: what is said next must then be read from the text, since it cannot be overheard from its beginning.
    """
    code = ids - tokens.audio_base
    number, position = code % tokens.codebook_size, (code // tokens.codebook_size).clamp(0, FRAME_TOKENS - 1)
    level = torch.tensor(LEVEL_OF_POSITION)[position]
    far = torch.randint(tokens.codebook_size, ids.shape, generator=generator)
    close = near[level, number, torch.randint(near.shape[2], ids.shape, generator=generator)]
    other = torch.where(torch.rand(ids.shape, generator=generator) < NEAR_SHARE, close, far)
    replaced = tokens.audio_base + position * tokens.codebook_size + other
    few, most = CORRUPTED
    share = few + (most - few) * (2 * torch.rand((len(ids), 1), generator=generator) - 1).clamp_min(0)
    chosen = (torch.rand(ids.shape, generator=generator) < share) & (code >= 0)
    return torch.where(chosen, replaced, ids)


def endless_batches(work: Path, tokens: Tokens, space: LatentSpace, first: int, steps: int) -> Iterator[Batch]:
    """Batches for steps `first`, `first + 1`, … by the curriculum, of what has been said by then."""
    silence, step = silent_frame(space), first
    base: list[Voice] = []
    for pool in itertools.count():
        if pool % 20 == 0:
            base = voices(work, space)
        phase = next(phase for phase in CURRICULUM if step / steps <= phase.until)
        draw = random.Random(f"pool-{first}-{pool}")
        chosen = draw.choices(base, [voice.weight for voice in base], k=SHUFFLED)
        speakers = [voice if voice.gridded else unnamed(voice, draw) for voice in chosen]
        drawn = [
            example(voice, tokens, silence, draw, max_words=draw.choice(phase.max_words), head_frames=phase.head_frames)
            for voice in speakers
        ]
        for batch in batches([one for one in drawn if len(one.ids) <= BATCH_TOKENS], draw, tokens["<pad>"]):
            yield batch
            step += 1


def unnamed(voice: Voice, draw: random.Random) -> Voice:
    """The same speaker, half of the time under letters that mean nothing, as an adapter's voice is prompted.

    Whoever is called by no known name is one of many then, and only *who* is left for the adapter to say.
    """
    if draw.random() < 0.5:
        return voice
    return replace(voice, name="".join(draw.choices(string.ascii_lowercase, k=draw.randint(1, 6))))


def losses(model: Any, batch: Batch, heard: Tensor, tokens: Tokens) -> tuple[Tensor, Tensor, Tensor]:
    """Weighted mean cross entropy over the answers, how far the guided heads look from the phone being voiced, and the
    share of frames whose first code is the likeliest.

    `heard` is `batch.ids` with some codes corrupted: the model's input. The softmax is over what the band mask allows
    at each position of a frame, as the engine samples, which also leaves text out of it.
    """
    read = model.model(heard[:, :-1], output_hidden_states=True)
    wanted = batch.targets[:, 1:]
    rows, size = model.lm_head.weight, tokens.codebook_size
    end = tokens["<end_of_speech>"]
    codes = rows[tokens.audio_base : tokens.audio_base + FRAME_TOKENS * size]
    bands = list(codes.split(size))  # has one gradient, where slices would make seven as large as the vocabulary
    bands[0] = torch.cat([bands[0], rows[end : end + 1]])  # a frame, or the end
    entropy, weight, right = torch.zeros(()), 0.0, torch.zeros(())
    for position, band in enumerate(bands):
        first = tokens.audio_base + position * size
        here = (wanted >= first) & (wanted < first + size)
        if position == 0:
            here = here | (wanted == end)
        spoken = wanted[here]
        numbers = torch.where(spoken == end, size, spoken - first)
        logits = functional.linear(read.last_hidden_state[here], band).float()  # (tokens here, codes [+ 1])
        entropy = entropy + CODE_WEIGHTS[position] * functional.cross_entropy(logits, numbers, reduction="sum")
        weight += CODE_WEIGHTS[position] * len(spoken)
        if position == 0:
            right = (logits.argmax(dim=1) == numbers).float().mean()
    guidance = [guided_attention_loss(model, read.hidden_states[layer], layer, batch) for layer in GUIDED_LAYERS]
    return entropy / weight, torch.stack(guidance).mean(), right


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
    return missed.transpose(0, 1)[:, voicing].sum() / (GUIDED_HEADS * voicing.sum()).clamp_min(1)


def rate_share(step: int, steps: int) -> float:
    """Of the peak rates: linear warm-up, then constant, then a linear decay to 1 %."""
    remaining = (steps - step) / (DECAY_SHARE * steps)
    return min((step + 1) / WARMUP_STEPS, 1.0, 0.01 + 0.99 * remaining)


def optimisers(model: Any) -> dict[str, torch.optim.Optimizer]:
    """Muon for the layers' matrices, AdamW for embeddings and norms."""
    named = dict(model.named_parameters())
    matrices = [weight for name, weight in named.items() if weight.ndim == 2 and "embed" not in name]
    rest = [weight for name, weight in named.items() if weight.ndim != 2 or "embed" in name]
    muon = Muon(matrices, lr=PEAK_RATES["matrices"], weight_decay=0.01)
    return {
        "matrices": muon,
        "rest": torch.optim.AdamW(rest, lr=PEAK_RATES["rest"], betas=(0.9, 0.98), weight_decay=0.01, fused=True),
    }


def train(work: Path, space: LatentSpace, steps: int = STEPS) -> None:
    """Trains for `steps` steps in all, resuming from `work/language.pt`; exports to `work/model` at checkpoints."""
    # 1. Model
    torch.manual_seed(0)
    tokens = Tokens(space.books.shape[1])
    model = LlamaForCausalLM(configuration(tokens))
    embed_codes(model, space, tokens)
    chosen = optimisers(model)
    kept = {"model": model, **chosen}
    first = resumed(work / "language.pt", kept)
    generator, near = torch.Generator().manual_seed(first), neighbours(space)
    began, heard, smoothed = time.monotonic(), 0, None
    # 2. Steps
    for step, batch in zip(range(first, steps), endless_batches(work, tokens, space, first, steps), strict=False):
        for name, optimiser in chosen.items():
            optimiser.param_groups[0]["lr"] = PEAK_RATES[name] * rate_share(step, steps)
        with quick_multiplications():
            loss, guidance, right = losses(model, batch, corrupted(batch.ids, tokens, near, generator), tokens)
        model.zero_grad(set_to_none=True)
        guided = next(weight for until, weight in GUIDANCE_WEIGHTS if step / steps <= until)
        (loss + guided * guidance).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        with quick_multiplications():
            for optimiser in chosen.values():
                optimiser.step()
        heard += batch.ids.numel()
        now = torch.stack([loss, right, guidance]).detach()
        smoothed = now if smoothed is None else smoothed.lerp(now, 0.05)
        if step % 25 == 0:
            pace = heard / (time.monotonic() - began)
            figures = (step, *smoothed.tolist(), pace)
            logger.info("language %d loss %.3f first codes %.3f guidance %.3f tokens/s %.0f", *figures)
        # 3. Checkpoint
        if (step + 1) % SAVED_EVERY == 0 or step + 1 == steps:
            save(work / "language.pt", kept, step + 1)
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
    reading_tokenizer(stored_rules(), tokens.codebook_size).save_pretrained(directory)
    written = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    if written["speech"] != tokens.speech_settings(BUILT_IN_VOICES):
        raise ValueError("transformers dropped config.json's `speech` entry; the engine could not read this model")
