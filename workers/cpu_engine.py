"""What vLLM 0.32's CPU build needs beside its settings: an engine core that starts soon and wastes no step.

Before the core starts its model is imported here, so that the core can be a fork that has everything already; after the
start the core's own parts are amended, inside it: base voices that share a batch with clones, and for a plain Llama a
lean forward pass and a head that reads one band. It knows no setting of ours; a GPU's engine never comes here.
"""

from __future__ import annotations

import gc
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workers.cpu_llama import CpuLlama, adapted_rows

if TYPE_CHECKING:
    from torch import Tensor

    from workers.sampling import BandMaskV1

NATIVE_BFLOAT16 = frozenset({"avx512_bf16", "amx_bf16"})
"""Flags of an x86 processor that multiplies bfloat16. Without one vLLM has no packed kernel for it: 960 × 320 by one
row took 101 µs, in float32 36 (a core with AVX2)."""


def dtype_here(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The faster of bfloat16 and float32 on this processor."""
    try:
        lines = cpuinfo.read_text("utf-8").splitlines()
    except OSError:
        return "float32"
    flags = next((line for line in lines if line.startswith("flags")), "")
    return "bfloat16" if NATIVE_BFLOAT16 & set(flags.split()) else "float32"


def import_model() -> None:
    """Import what the engine core will run, in the process that it is forked from.

    Registered as a class, Llama is not inspected in a process of its own, which would import all of vLLM for it.
    """
    from vllm import ModelRegistry
    from vllm.model_executor.models.llama import LlamaForCausalLM

    ModelRegistry.register_model(LlamaForCausalLM.__name__, LlamaForCausalLM)
    # What is imported stays: a collection in either process would only copy pages that both share.
    gc.collect()
    gc.freeze()


class CpuExtension:
    """Mixed into vLLM's worker by its name (`worker_extension_cls`); `amend` is called once after the start."""

    def amend(self) -> None:
        runner: Any = getattr(self, "model_runner")  # noqa: B009
        _group_rows_by_adapter()
        if CpuLlama.fits(runner.model, runner.vllm_config):
            runner.model.forward = CpuLlama(runner.model).forward
        head = runner.model.logits_processor
        plain_head = getattr(head, "scale", None) == 1.0 and head.soft_cap is None
        if (mask := _band_mask(runner)) and plain_head:
            mask.head_is_banded = True
            weight: Tensor = runner.model.lm_head.weight
            runner.model.compute_logits = lambda hidden: mask.logits(hidden, weight)


EXTENSION = f"{__name__}.{CpuExtension.__qualname__}"


def _band_mask(runner: Any) -> BandMaskV1 | None:
    from workers.sampling import BandMaskV1

    return next((each for each in runner.input_batch.logitsprocs.all if isinstance(each, BandMaskV1)), None)


def _group_rows_by_adapter() -> None:
    """Let vLLM's LoRA operations know which rows have an adapter, and leave the others alone.

    A row without one has index −1. The GPU kernels skip it; the CPU's torch operations take it for an index from the
    end, and so add the LoRA of the last slot (https://github.com/vllm-project/vllm/pull/48421, open). Measured, greedy
    in float32: a base voice beside two clones left its own codes after 9 frames, while the clones kept theirs.
    """
    from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

    update, shrink, add = (
        PunicaWrapperCPU.update_metadata,
        PunicaWrapperCPU._apply_shrink,
        PunicaWrapperCPU.add_lora_linear,
    )

    def update_and_group(
        self: Any, mapping: Any, lora_index_to_id: list[int | None], *args: Any, **kwargs: Any
    ) -> None:
        update(self, mapping, lora_index_to_id, *args, **kwargs)
        self.adapted = adapted_rows(mapping.index_mapping, lora_index_to_id)

    def shrink_adapted_rows(self: Any, y: Tensor, x: Tensor, w_t_all: Tensor, scale: float) -> None:
        """y [rows, rank] = scale · x @ A of each row's own adapter, and nothing for a row that has none."""
        shrink(self, y, x, w_t_all, scale)
        y.masked_fill_((self.token_lora_indices < 0).unsqueeze(1), 0)

    def add_where_adapted(self: Any, y: Tensor, *args: Any, **kwargs: Any) -> None:
        if self.adapted:
            add(self, y, *args, **kwargs)

    PunicaWrapperCPU.adapted = ()  # pyright: ignore[reportAttributeAccessIssue]
    PunicaWrapperCPU.update_metadata = update_and_group  # pyright: ignore[reportAttributeAccessIssue]
    PunicaWrapperCPU._apply_shrink = shrink_adapted_rows
    PunicaWrapperCPU.add_lora_linear = add_where_adapted
