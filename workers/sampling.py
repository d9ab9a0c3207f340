"""The band mask: the only tokens the model may choose are those the codec can play.

At position k of a frame only the codes of codebook band k may follow; at a frame boundary the end of speech may too,
though not before the first frame. So no invalid frame exists, and nothing downstream has to guess. vLLM has two
interfaces for this, by model runner: V1 (the CPU build, and GPUs without Triton) and V2. Both classes are loaded by
name inside the engine core's process; they read the layout from `additional_config`, put there by
`workers.vllm_config`. They know nothing of voices, texts or sessions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import linear
from vllm.v1.sample.logits_processor.builtin import process_dict_updates
from vllm.v1.sample.logits_processor.interface import BatchUpdate
from vllm.v1.sample.logits_processor.interface import LogitsProcessor as LogitsProcessorV1
from vllm.v1.worker.gpu.sample.logits_processor.interface import LogitsContext, LogitsProcRequestState
from vllm.v1.worker.gpu.sample.logits_processor.interface import LogitsProcessor as LogitsProcessorV2

from app.speech.token_layout import TOKENS_PER_FRAME, TokenLayout

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.config import VllmConfig

CONFIG_KEY = "carillon_bands"
WRITTEN = "carillon_written"
"""Of a request's extra arguments: how many codes its prompt ends with, where speech goes on that began elsewhere."""


def band_config(layout: TokenLayout) -> dict[str, Any]:
    """What the engine core's process must know, as plain values for `additional_config`."""
    return {
        CONFIG_KEY: {
            "base": layout.speech.audio_token_base,
            "codebook_size": layout.codebook_size,
            "end_id": layout.end_id,
        }
    }


class BandMask:
    """Masks a batch of logits in place, without a Python loop over its rows."""

    def __init__(self, vllm_config: VllmConfig, device: torch.device) -> None:
        assert isinstance(vllm_config.additional_config, dict)
        bands: dict[str, int] = vllm_config.additional_config[CONFIG_KEY]
        self._base = bands["base"]
        self._codebook_size = bands["codebook_size"]
        self.end_id = bands["end_id"]
        self._codes = torch.arange(self._codebook_size, device=device)  # [K]

    def band(self, place: int) -> tuple[int, int]:
        """The half-open range of token ids that may stand at `place` of a frame."""
        start = self._base + place * self._codebook_size
        return start, start + self._codebook_size

    def apply(self, logits: Tensor, positions: Tensor) -> Tensor:
        """Keep what may stand at `positions` [B] (tokens since the start of speech); the rest of `logits` [B, V]
        becomes −inf. Returns `logits`."""
        place = positions % TOKENS_PER_FRAME  # [B]
        columns = (self._base + place * self._codebook_size).unsqueeze(1) + self._codes  # [B, K]
        codes = logits.gather(1, columns)  # [B, K]
        may_end = (place == 0) & (positions > 0)  # [B]
        end = logits[:, self.end_id].masked_fill(~may_end, -torch.inf)  # [B]
        logits.fill_(-torch.inf)
        logits.scatter_(1, columns, codes)
        logits[:, self.end_id] = end
        return logits


class BandMaskV1(LogitsProcessorV1):
    """For the V1 model runner, which hands over each request's list of output tokens."""

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:
        self._mask = BandMask(vllm_config, device)
        self._device = device
        self.head_is_banded = False
        """Whether `logits` stands in the place of the model's own head, and so has masked them already."""
        self._written: dict[int, tuple[int, list[int]]] = {}

    def is_argmax_invariant(self) -> bool:
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        process_dict_updates(self._written, batch_update, lambda params, _prompt, outputs: (_before(params), outputs))

    def apply(self, logits: Tensor) -> Tensor:
        if self.head_is_banded:
            return logits
        return self._mask.apply(logits, torch.tensor(self._positions(logits.shape[0]), device=self._device))

    def _positions(self, rows: int) -> list[int]:
        """How many codes each of the first `rows` requests of the batch has written."""
        return [before + len(outputs) for before, outputs in (self._written.get(row, (0, ())) for row in range(rows))]

    def logits(self, hidden: Tensor, weight: Tensor) -> Tensor:
        """The masked logits [B, V] of `hidden` [B, D] under a head `weight` [V, D], of which only the rows of each
        request's band are read: a seventh of the head, which is half of a small model's weights."""
        positions = self._positions(hidden.shape[0])
        logits = hidden.new_full((hidden.shape[0], weight.shape[0]), -torch.inf)
        places: dict[int, list[int]] = {}
        for row, position in enumerate(positions):
            places.setdefault(position % TOKENS_PER_FRAME, []).append(row)
        for place, rows in places.items():
            start, stop = self._mask.band(place)
            for row, scores in zip(rows, linear(hidden[rows], weight[start:stop]), strict=True):
                logits[row, start:stop] = scores
        end_id = self._mask.end_id
        for row in (row for row in places.get(0, ()) if positions[row]):
            logits[row, end_id] = torch.dot(hidden[row], weight[end_id])
        return logits


class BandMaskV2(LogitsProcessorV2):
    """For the V2 model runner, which keeps prompt lengths and positions on the device."""

    def __init__(self, vllm_config: VllmConfig, req_states: LogitsProcRequestState) -> None:
        self._mask = BandMask(vllm_config, req_states.device)
        self._states = req_states
        self._before = torch.zeros_like(req_states.prompt_len.gpu)  # [requests]

    def add_request(self, req_idx: int, sampling_params: SamplingParams) -> bool:
        self._before[req_idx] = _before(sampling_params)
        return True

    def apply(self, logits: Tensor, ctx: LogitsContext) -> Tensor:
        prompt_len = self._states.prompt_len.gpu[ctx.expanded_idx_mapping]  # [B]
        written = (ctx.pos + 1 - prompt_len).clamp(min=0) + self._before[ctx.expanded_idx_mapping]
        return self._mask.apply(logits, written.long())


def _before(params: SamplingParams) -> int:
    return (params.extra_args or {}).get(WRITTEN, 0)
