"""Training of `snac`'s quantiser: the package returns no losses, so its arithmetic is repeated here with them.

Codebooks are not trained by gradients: they start as k-means of what the encoder makes and follow it as a moving
average (van den Oord et al. 2017, appendix A); codes that fell out of use move to vectors that occur.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from snac import SNAC
from snac.vq import VectorQuantize
from torch import Tensor
from torch.nn import functional

COMMITMENT_WEIGHT = 0.25
DECAY = 0.98
DEAD_BELOW = 0.1  # of its fair share of the vectors


def quantizers_of(codec: SNAC) -> list[VectorQuantize]:
    """The codec's levels, the coarsest first."""
    return list(codec.quantizer.quantizers)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Quantised:
    """A latent through the quantiser: (batch, width, steps), and per level what became of it."""

    latent: Tensor
    loss: Tensor
    codes: list[Tensor]  # (batch, steps / stride) each
    projections: list[Tensor]  # (batch, codebook_dim, steps / stride) each, detached


def quantised(codec: SNAC, latent: Tensor, whole: bool = True) -> Quantised:
    """(batch, width, steps) as codes and back; while not `whole`, the projections pass unrounded."""
    residual, total, loss = latent, torch.zeros_like(latent), latent.new_zeros(())
    codes, projections = [], []
    for quantizer in quantizers_of(codec):
        projected = quantizer.in_proj(functional.avg_pool1d(residual, quantizer.stride, quantizer.stride))
        chosen, indices = quantizer.decode_latents(projected)
        passed = projected
        if whole:
            loss = loss + COMMITMENT_WEIGHT * functional.mse_loss(projected, chosen.detach())
            passed = projected + (chosen - projected).detach()
        step = quantizer.out_proj(passed).repeat_interleave(quantizer.stride, dim=-1)
        total, residual = total + step, residual - step
        codes.append(indices)
        projections.append(projected.detach())
    return Quantised(total, loss, codes, projections)


class Codebooks:
    """Moves the codebooks: a k-means start, then moving averages of the vectors that chose each code."""

    def __init__(self, codec: SNAC) -> None:
        self.quantizers = quantizers_of(codec)
        for quantizer in self.quantizers:
            quantizer.codebook.weight.requires_grad_(False)
        weights = [quantizer.codebook.weight for quantizer in self.quantizers]
        self.counts = [torch.ones(len(weight), device=weight.device) for weight in weights]
        self.sums = [weight.detach().clone() for weight in weights]

    @torch.no_grad()
    def start(self, codec: SNAC, latents: list[Tensor], iterations: int = 12) -> None:
        """Sets every level to the k-means of the residuals that the levels before it leave of `latents`."""
        residual = torch.cat(latents)
        for level, quantizer in enumerate(self.quantizers):
            projected = quantizer.in_proj(functional.avg_pool1d(residual, quantizer.stride, quantizer.stride))
            vectors = projected.transpose(1, 2).flatten(0, 1)
            quantizer.codebook.weight.copy_(spherical_means(vectors, len(quantizer.codebook.weight), iterations))
            self.sums[level].copy_(quantizer.codebook.weight)
            self.counts[level].fill_(1)
            step = quantizer.out_proj(quantizer.decode_latents(projected)[0])
            residual = residual - step.repeat_interleave(quantizer.stride, dim=-1)

    @torch.no_grad()
    def follow(self, heard: Quantised, revive: bool = True) -> None:
        """One step of the averages; with `revive`, codes that hardly anything chose move to vectors of this step."""
        for level, quantizer in enumerate(self.quantizers):
            counts, sums = self.counts[level], self.sums[level]
            vectors = heard.projections[level].transpose(1, 2).flatten(0, 1)  # (batch * steps, codebook_dim)
            chosen = heard.codes[level].flatten()
            counts.mul_(DECAY).add_(torch.bincount(chosen, minlength=len(counts)), alpha=1 - DECAY)
            sums.mul_(DECAY).index_add_(0, chosen, vectors, alpha=1 - DECAY)
            quantizer.codebook.weight.copy_(sums / counts.clamp_min(1e-6)[:, None])
            dead = (counts < DEAD_BELOW * len(vectors) / len(counts)).nonzero().flatten()
            if revive and len(dead):
                picked = vectors[torch.randint(len(vectors), (len(dead),), device=vectors.device)]
                quantizer.codebook.weight[dead] = picked * (1 + 0.01 * torch.randn_like(picked))
                counts[dead] = len(vectors) / len(counts)
                sums[dead] = quantizer.codebook.weight[dead] * counts[dead][:, None]

    def alive(self) -> list[int]:
        """How many codes of each level are in use."""
        return [int((counts > DEAD_BELOW * counts.mean()).sum()) for counts in self.counts]

    def state_dict(self) -> dict[str, list[Tensor]]:
        """What `load_state_dict` needs to go on."""
        return {"counts": self.counts, "sums": self.sums}

    def load_state_dict(self, state: dict[str, list[Tensor]]) -> None:
        """Goes on from `state`."""
        for mine, stored in zip([*self.counts, *self.sums], [*state["counts"], *state["sums"]], strict=True):
            mine.copy_(stored)


def spherical_means(vectors: Tensor, count: int, iterations: int) -> Tensor:
    """`count` means of (n, width) vectors grouped by direction, as `snac` chooses codes: (count, width)."""
    means = vectors[torch.randperm(len(vectors), device=vectors.device)[torch.arange(count) % len(vectors)]].clone()
    for _ in range(iterations):
        nearest = (functional.normalize(vectors) @ functional.normalize(means).T).argmax(dim=1)
        sums = torch.zeros_like(means).index_add_(0, nearest, vectors)
        sizes = torch.bincount(nearest, minlength=count)
        empty = sizes == 0
        means = sums / sizes.clamp_min(1)[:, None]
        means[empty] = vectors[torch.randint(len(vectors), (int(empty.sum()),), device=vectors.device)]
    return means
