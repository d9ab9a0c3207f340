"""A fault of vLLM 0.32's CPU build, mended inside the engine core: base voices that share a batch with clones.

A row without an adapter has index −1. The GPU kernels skip it; the CPU's torch operations take it for an index from
the end, and so add the LoRA of the last slot (https://github.com/vllm-project/vllm/pull/48421, open). Measured here,
greedy in float32: a base voice beside two clones left its own codes after 9 frames, while the clones kept theirs.
Mended, all of them keep theirs to the last code, in bfloat16 too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


class BaseVoicesApart:
    """Mixed into vLLM's worker by its name (`worker_extension_cls`), and called once after the start."""

    def keep_base_voices_apart(self) -> None:
        from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

        shrink = PunicaWrapperCPU._apply_shrink

        def shrink_adapted_rows(
            self: Any, y: torch.Tensor, x: torch.Tensor, w_t_all: torch.Tensor, scale: float
        ) -> None:
            """y [rows, rank] = scale · x @ A of each row's own adapter, and nothing for a row that has none."""
            shrink(self, y, x, w_t_all, scale)
            if not self.no_lora:
                y.masked_fill_((self.token_lora_indices < 0).unsqueeze(1), 0)

        PunicaWrapperCPU._apply_shrink = shrink_adapted_rows


EXTENSION = f"{__name__}.{BaseVoicesApart.__qualname__}"
MENDING = BaseVoicesApart.keep_base_voices_apart.__name__
