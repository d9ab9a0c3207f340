"""Muon (Jordan et al. 2024) in single precision: torch's own works in bfloat16, which not every CPU multiplies.

It learns rare associations, here which phones sound how, in about half of AdamW's steps.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

TURNS = 5
_A, _B, _C = 3.4445, -4.7750, 2.0315
"""Of the quintic that brings singular values near to 1."""


class Muon(torch.optim.Optimizer):
    """Steps by the orthogonal matrix nearest to each matrix's momentum, as large as AdamW's usually are."""

    def __init__(self, matrices: Iterable[Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.01):
        super().__init__(matrices, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step of all matrices, those of one shape together."""
        for group in self.param_groups:
            alike: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for weight in group["params"]:
                if weight.grad is not None:
                    alike[weight.shape].append(weight)
            for shape, weights in alike.items():
                turned = orthogonal(torch.stack([self._momentum(weight, group["momentum"]) for weight in weights]))
                length = group["lr"] * 0.2 * max(shape) ** 0.5
                for weight, direction in zip(weights, turned, strict=True):
                    weight.mul_(1 - group["lr"] * group["weight_decay"]).add_(direction, alpha=-length)

    def _momentum(self, weight: Tensor, share: float) -> Tensor:
        """Nesterov's."""
        state = self.state[weight]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(weight)
        gradient = weight.grad
        assert gradient is not None
        state["momentum"].lerp_(gradient, 1 - share)
        return gradient.lerp(state["momentum"], share)


def orthogonal(matrices: Tensor) -> Tensor:
    """Nearly the orthogonal matrix nearest to each of (n, rows, columns), by Newton and Schulz."""
    wide = matrices.shape[1] <= matrices.shape[2]
    turned = matrices if wide else matrices.transpose(1, 2)
    turned = turned / (turned.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
    for _ in range(TURNS):
        square = turned @ turned.transpose(1, 2)
        turned = _A * turned + (_B * square + _C * square @ square) @ turned
    return turned if wide else turned.transpose(1, 2)
