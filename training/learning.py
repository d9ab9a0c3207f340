"""One step of a LoRA's training: padded batches, and the cross entropy of a model's hidden states.

Two losses. "codes" is taken among the tokens that the engine's band mask allows at each position, so that the voice
learns as it is served, and a logit is made for 4,096 tokens instead of Orpheus's 156,940. "all" is taken over the whole
vocabulary and the prompt too, as Orpheus's own recipe.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from app.speech.token_layout import TOKENS_PER_FRAME, TokenLayout
from training.clips import Clip

LossKind = Literal["codes", "all"]
LOGITS_TOKENS = 1024
"""Whole-vocabulary logits are made for so many tokens at a time, and made again for the gradient."""


@dataclass(frozen=True)
class Batch:
    """Right-padded clips, (clips, tokens) int64 each; attention is causal, so padding needs no mask.

    `positions` counts an answer's tokens from its first code, -1 elsewhere; `real` is false where there is padding.
    """

    ids: Tensor
    positions: Tensor
    real: Tensor

    @classmethod
    def of(cls, clips: Sequence[Clip], pad_id: int, device: torch.device) -> Batch:
        shape = len(clips), max(len(clip.ids) for clip in clips)
        ids, positions, real = torch.full(shape, pad_id), torch.full(shape, -1), torch.zeros(shape, dtype=torch.bool)
        for row, clip in enumerate(clips):
            ids[row, : len(clip.ids)] = torch.from_numpy(clip.ids)
            answer = slice(clip.answer_start, clip.answer_stop)
            positions[row, answer] = torch.arange(clip.answer_stop - clip.answer_start)
            real[row, : len(clip.ids)] = True
        return cls(ids.to(device), positions.to(device), real.to(device))


def target_count(clip: Clip, kind: LossKind) -> int:
    """How many tokens of a clip the loss is summed over."""
    return clip.answer_stop - clip.answer_start if kind == "codes" else len(clip.ids) - 1


def corrupted(ids: Tensor, layout: TokenLayout, share: float) -> Tensor:
    """`ids` with some codes replaced by random ones of their band: of each clip any share of them up to `share`."""
    code = ids - layout.speech.audio_token_base
    other = torch.randint(layout.codebook_size, ids.shape, device=ids.device)
    shares = share * torch.rand((len(ids), 1), device=ids.device)
    chosen = (torch.rand(ids.shape, device=ids.device) < shares) & (code >= 0)
    return torch.where(chosen, ids - code % layout.codebook_size + other, ids)


def summed_loss(model: Any, batch: Batch, layout: TokenLayout, kind: LossKind, *, corruption: float = 0.0) -> Tensor:
    """The cross entropy of a batch summed over its targets: () float32. `model` is a Hugging Face causal LM.

    With `corruption` the model reads corrupted codes; its targets stay as they are.
    """
    inputs = corrupted(batch.ids, layout, corruption) if corruption else batch.ids
    hidden = model.model(inputs, use_cache=False).last_hidden_state[:, :-1]  # (clips, tokens - 1, width)
    head = model.get_output_embeddings().weight
    if kind == "codes":
        return _codes_loss(hidden, batch, head, layout)
    return _whole_loss(hidden, batch, head)


def _codes_loss(hidden: Tensor, batch: Batch, head: Tensor, layout: TokenLayout) -> Tensor:
    targets, positions = batch.ids[:, 1:], batch.positions[:, 1:]
    total = torch.zeros((), device=hidden.device)
    for place in range(TOKENS_PER_FRAME):
        chosen = (positions >= 0) & (positions % TOKENS_PER_FRAME == place)
        first, stop = layout.band(place)
        wanted, rows = targets[chosen] - first, head[first:stop]
        if place == 0:  # where a frame begins, speech may end instead
            wanted = torch.where(targets[chosen] == layout.end_id, layout.codebook_size, wanted)
            rows = torch.cat([rows, head[layout.end_id : layout.end_id + 1]])
        logits = functional.linear(hidden[chosen], rows)  # (targets of this place, codebook_size + 1 or + 0)
        total = total + functional.cross_entropy(logits.float(), wanted, reduction="sum")
    return total


def _whole_loss(hidden: Tensor, batch: Batch, head: Tensor) -> Tensor:
    chosen = batch.real[:, 1:]
    states, wanted = hidden[chosen].split(LOGITS_TOKENS), batch.ids[:, 1:][chosen].split(LOGITS_TOKENS)

    def part(some: Tensor, ids: Tensor) -> Tensor:
        return functional.cross_entropy(functional.linear(some, head).float(), ids, reduction="sum")

    parts = [checkpoint(part, some, ids, use_reentrant=False) for some, ids in zip(states, wanted, strict=True)]
    return torch.stack(parts).sum()
