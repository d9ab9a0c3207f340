"""What one worker takes on, by the device it runs on: sessions, LoRA slots, the batch, its share of a card.

Pure arithmetic over a card's memory and a model's size. On a CPU the figures suit the stand-in on two cores. Those for
cards are inferred from other people's measurements and from memory, and were run on none: `carillon bench speech` says
what a card really carries. It does not know settings, which override every figure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

GIB = 1024**3

WORKING_BYTES = 3 * GIB
"""Of a card, beside weights, slots and sessions: activations and CUDA graphs of one step (inferred)."""

CODEC_BYTES = 2 * GIB
"""Of a card, outside vLLM's share: the codec with its graphs and sessions, and CUDA's own context (inferred)."""

TRAINING_BYTES = 6 * GIB
"""Of a card, beside the weights in bf16: activations, logits and optimiser of a training at 8,192 tokens a step."""

LARGEST_SHARE = 0.85
"""Of a card, for vLLM: the rest is for the codec."""

FP8_BYTES_PER_WEIGHT = 1.2
"""The head and the embeddings stay in bf16."""

ADAPTER_SHARE = 0.0075
"""A slot of rank 16, of the weights in bf16: 49 MB of 6.6 GB for Orpheus-3B."""


@dataclass(frozen=True, slots=True)
class ModelSize:
    """What a language model weighs: its parameters, and what one token of a session keeps in the KV cache."""

    parameters: int
    kv_bytes_per_token: int

    @property
    def bf16_bytes(self) -> int:
        return 2 * self.parameters

    @property
    def training_bytes(self) -> int:
        """What a training of this model takes of a card."""
        return self.bf16_bytes + TRAINING_BYTES


@dataclass(frozen=True, slots=True)
class Card:
    """One GPU: its memory in all, and whether it has FP8 units."""

    total_bytes: int
    fp8: bool = False


@dataclass(frozen=True, slots=True)
class EngineProfile:
    """The figures in force. Each can be set: `CARILLON_CAPACITY`, and `CARILLON_ENGINE__…` of the same name."""

    capacity: int
    max_loras: int
    max_cpu_loras: int
    max_num_seqs: int
    max_num_batched_tokens: int
    stream_interval: int
    gpu_memory_utilization: float

    def words(self) -> str:
        """For the person who starts a worker: `32 sessions, 16 LoRA slots, …`."""
        return (
            f"{self.capacity} sessions, {self.max_loras} LoRA slots ({self.max_cpu_loras} adapters in host memory), "
            f"{self.max_num_seqs} streams and {self.max_num_batched_tokens} prompt tokens a step, "
            f"a report every {self.stream_interval} tokens"
        )


CPU = EngineProfile(
    capacity=4,
    max_loras=4,
    max_cpu_loras=32,
    max_num_seqs=4,
    max_num_batched_tokens=4096,
    stream_interval=7,
    gpu_memory_utilization=LARGEST_SHARE,
)

BY_MEMORY = ((130, 128, 32), (75, 64, 32), (44, 32, 16), (22, 16, 8), (0, 8, 4))
"""From so many GiB on: sessions, LoRA slots. An H200; an A100 or H100; an L40S; a 4090, an A10G; what is smaller."""


def engine_profile(
    device: Literal["cpu", "cuda"],
    *,
    card: Card | None = None,
    model: ModelSize | None = None,
    max_model_len: int = 4096,
    share: float | None = None,
) -> EngineProfile:
    """The profile of a device; `share` is what a worker has of its card, where that is settled already.

    With the model's size, no more sessions than the KV cache holds at half their greatest length: a chunk of text is
    seldom longer, and vLLM preempts what does not fit.
    """
    if device == "cpu" or card is None:
        return CPU
    share = LARGEST_SHARE if share is None else share
    capacity, slots = next((sessions, slots) for gib, sessions, slots in BY_MEMORY if card.total_bytes >= gib * GIB)
    if model is not None:
        free = share * card.total_bytes - serving_bytes(model, card, slots=slots)
        capacity = max(1, min(capacity, int(free / (model.kv_bytes_per_token * max_model_len / 2))))
    return EngineProfile(
        capacity=capacity,
        max_loras=slots,
        max_cpu_loras=4 * slots,
        max_num_seqs=capacity,
        max_num_batched_tokens=4096,
        stream_interval=7,
        gpu_memory_utilization=share,
    )


def serving_bytes(model: ModelSize, card: Card, *, slots: int) -> int:
    """What a worker takes of its card before the first session."""
    weights = model.parameters * (FP8_BYTES_PER_WEIGHT if card.fp8 else 2)
    return int(weights + slots * ADAPTER_SHARE * model.bf16_bytes + WORKING_BYTES)


def worker_share(card: Card, model: ModelSize, *, trainer: bool = False) -> float:
    """The part of a card that its worker gets, to two places; with a trainer beside it less, if it fits so.

    Where a training does not fit beside it the worker gets all: the training then waits until it is gone.
    """
    slots = engine_profile("cuda", card=card).max_loras
    most = (card.total_bytes - CODEC_BYTES) / card.total_bytes
    least = (serving_bytes(model, card, slots=slots) + GIB) / card.total_bytes
    beside = most - model.training_bytes / card.total_bytes
    share = beside if trainer and beside >= least else most
    return int(100 * min(LARGEST_SHARE, share)) / 100
