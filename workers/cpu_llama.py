"""Llama's forward pass on a CPU, with vLLM's own kernels and without what stands around them.

At the size of the stand-in a step of vLLM's CPU build is mostly dispatch: custom operators by name, wrappers of layers,
norms and rotations written out op by op, and LoRA's path in every projection though no adapter is in the batch. Here
the same weights meet the same kernels directly, and a row's adapter costs two small products for each projection.

It runs inside the engine core, where `workers.cpu_engine` puts it in the place of vLLM's own pass. It knows nothing of
sampling, speech or sessions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from vllm.model_executor.models.llama import LlamaDecoderLayer, LlamaForCausalLM


class AdaptedRows(NamedTuple):
    """Rows of a batch that one adapter changes; `rows` is None where it is all of them."""

    slot: int
    rows: Tensor | None


class Projection:
    """A linear layer, or several that share their input: y = x Wᵀ, and for adapted rows + (x Aᵀ) Bᵀ of their slot."""

    def __init__(self, wrapped: Any) -> None:
        """`wrapped` is vLLM's layer with LoRA; from now on its slots of A are views of one tensor for all slices."""
        self._linear = wrapped.base_layer
        slices: Sequence[Tensor] = wrapped.lora_a_stacked  # each [slots, 1, rank, in]
        self._down = torch.cat(list(slices), dim=2).squeeze(1)  # [slots, slices × rank, in]
        wrapped.lora_a_stacked = tuple(part.unsqueeze(1) for part in self._down.split(slices[0].shape[2], dim=1))
        self._up = [part.squeeze(1) for part in wrapped.lora_b_stacked]  # each [slots, out, rank]

    def __call__(self, x: Tensor, adapted: Sequence[AdaptedRows]) -> Tensor:
        """x [tokens, in] → [tokens, out]."""
        linear = self._linear
        y: Tensor = linear.cpu_linear(x, linear.weight, None)
        for slot, rows in adapted:
            inner = torch.mm(x if rows is None else x[rows], self._down[slot].t())
            start, column = 0, 0
            for up in self._up:
                out, rank = up.shape[1:]
                part = inner.narrow(1, column, rank)
                target = y.narrow(1, start, out)
                if rows is None:
                    target.addmm_(part, up[slot].t())
                else:
                    target.index_add_(0, rows, torch.mm(part, up[slot].t()))
                start, column = start + out, column + rank
        return y


class Layer:
    """One decoder layer: attention over the paged cache, then the gated MLP, each behind its norm."""

    def __init__(self, layer: LlamaDecoderLayer) -> None:
        attention: Any = layer.self_attn
        self._attention = attention.attn
        self._name: str = attention.attn.layer_name
        self._width = attention.head_dim
        self._splits = [attention.q_size, attention.kv_size, attention.kv_size]
        self._rotations: Tensor = attention.rotary_emb.cos_sin_cache
        self._qkv, self._out = Projection(attention.qkv_proj), Projection(attention.o_proj)
        mlp: Any = layer.mlp
        self._gate_up, self._down = Projection(mlp.gate_up_proj), Projection(mlp.down_proj)
        norms: Any = (layer.input_layernorm, layer.post_attention_layernorm)
        self._norms = [(norm.weight, norm.variance_epsilon) for norm in norms]

    def __call__(
        self, x: Tensor, residual: Tensor, positions: Tensor, context: Any, adapted: Sequence[AdaptedRows]
    ) -> Tensor:
        """x [tokens, width] is added to `residual`, in place, and normed first. Returns what is to be added next."""
        kernels = torch.ops._C
        weight, epsilon = self._norms[0]
        kernels.fused_add_rms_norm.default(x, residual, weight, epsilon)
        x = self._out(self._attend(self._qkv(x, adapted), positions, context), adapted)
        weight, epsilon = self._norms[1]
        kernels.fused_add_rms_norm.default(x, residual, weight, epsilon)
        gate_up = self._gate_up(x, adapted)
        x = gate_up.new_empty(gate_up.shape[0], gate_up.shape[1] // 2)
        kernels.silu_and_mul.default(x, gate_up)
        return self._down(x, adapted)

    def _attend(self, qkv: Tensor, positions: Tensor, context: Any) -> Tensor:
        """qkv [tokens, q + k + v] → [tokens, heads × width], with the new keys and values in the cache."""
        q, k, v = qkv.split(self._splits, dim=-1)
        torch.ops._C.rotary_embedding.default(positions, q, k, self._width, self._rotations.to(q.dtype), True)
        q, k, v = (part.view(len(part), -1, self._width) for part in (q, k, v))
        output = torch.empty_like(q, memory_format=torch.contiguous_format)
        attention = self._attention
        cache = attention.kv_cache
        attention.impl.do_kv_cache_update(attention, k, v, cache, context.slot_mapping[self._name])
        attention.impl.forward(attention, q, k, v, cache, context.attn_metadata[self._name], output=output)
        return output.view(len(output), -1)


class CpuLlama:
    """The forward pass of a `LlamaForCausalLM` whose projections carry LoRA."""

    @staticmethod
    def fits(model: Any, config: Any) -> bool:
        """Whether `model` is a plain Llama on one CPU: no quantisation, no bias, no other rotation than Llama's."""
        from vllm.model_executor.layers.rotary_embedding.base import RotaryEmbedding
        from vllm.model_executor.layers.rotary_embedding.llama3_rope import Llama3RotaryEmbedding
        from vllm.model_executor.models.llama import LlamaForCausalLM

        if type(model) is not LlamaForCausalLM or config.quant_config is not None or not config.lora_config:
            return False
        if config.parallel_config.world_size != 1:
            return False
        layer: Any = model.model.layers[0]
        attention, mlp = layer.self_attn, layer.mlp
        linears = (attention.qkv_proj, attention.o_proj, mlp.gate_up_proj, mlp.down_proj)
        if any(each.base_layer.bias is not None for each in linears):
            return False
        return type(attention.rotary_emb) in (RotaryEmbedding, Llama3RotaryEmbedding)

    def __init__(self, model: LlamaForCausalLM) -> None:
        self._embed = model.model.embed_input_ids
        self._layers = [Layer(layer) for layer in model.model.layers]  # pyright: ignore[reportArgumentType]
        self._norm: Any = model.model.norm
        self._fallback: Callable[..., Any] = model.forward
        first: Any = model.model.layers[0]
        self._lora = first.self_attn.qkv_proj.punica_wrapper

    def forward(
        self, input_ids: Tensor | None, positions: Tensor, intermediate_tensors: Any = None, inputs_embeds: Any = None
    ) -> Any:
        """Token ids and positions [tokens] → hidden states [tokens, width]."""
        from vllm.forward_context import get_forward_context

        context = get_forward_context()
        if input_ids is None or not isinstance(context.attn_metadata, dict):
            return self._fallback(input_ids, positions, intermediate_tensors, inputs_embeds)
        x = self._embed(input_ids)
        residual = torch.zeros_like(x)
        for layer in self._layers:
            x = layer(x, residual, positions, context, self._lora.adapted)
        torch.ops._C.fused_add_rms_norm.default(x, residual, self._norm.weight, self._norm.variance_epsilon)
        return x


def adapted_rows(adapter_ids: Sequence[int], slots: Sequence[int | None]) -> list[AdaptedRows]:
    """The groups of a batch: `adapter_ids` has each token's adapter (0: none), `slots` the adapter in each slot."""
    groups: dict[int, list[int]] = {}
    for row, adapter in enumerate(adapter_ids):
        if adapter > 0:
            groups.setdefault(slots.index(adapter), []).append(row)
    everything = len(adapter_ids)
    return [AdaptedRows(slot, None if len(rows) == everything else torch.tensor(rows)) for slot, rows in groups.items()]
