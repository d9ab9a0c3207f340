"""The latents and the codes that stand for them, found without training a network.

A latent is the principal components of a step's spectra (`spectra`). The codebooks are k-means of what the levels above
leave: the mean of four steps, of two, the step itself. The encoder then only has to learn to give these latents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from snac import SNAC
from snac.vq import VectorQuantize
from torch import Tensor

from training.standin.spectra import steps_of

STRIDES = (4, 2, 1)  # steps of a code, per level
ITERATIONS = 12
LIFT = 5.0  # times the longest code; see `install`
SELDOM = 1e-6  # a weight that says nothing, where weight normalisation cannot have a row of zeros


@dataclass(frozen=True)
class LatentSpace:
    """Axes and codebooks.

    `mean` (STEP_WIDTH,) and `axes` (STEP_WIDTH, width) lead from spectra to latents, `back` (width, STEP_WIDTH) the
    other way; `books` is (levels, codes, width); `spread` (latent_dim, width) leads to the many latents that the
    codec's class has, of which `width` are independent.
    """

    mean: Tensor
    axes: Tensor
    back: Tensor
    books: Tensor
    spread: Tensor

    @property
    def width(self) -> int:
        """How many numbers a latent has."""
        return self.axes.shape[1]

    def of(self, waves: Tensor) -> Tensor:
        """(batch, steps * STEP_SAMPLES) -> (batch, steps, width)."""
        return (steps_of(waves) - self.mean) @ self.axes

    def spectra(self, latents: Tensor) -> Tensor:
        """(…, width) -> (…, STEP_WIDTH), the spectra that they stand for."""
        return latents @ self.back + self.mean

    def rounded(self, latents: Tensor) -> Tensor:
        """(batch, steps, width), the steps a multiple of four -> the same as the codes have it."""
        residual = latents
        for stride, book, codes in zip(STRIDES, self.books, self.codes(latents), strict=True):
            residual = residual - book[codes].repeat_interleave(stride, dim=1)
        return latents - residual

    def codes(self, latents: Tensor) -> list[Tensor]:
        """(batch, steps, width), the steps a multiple of four -> each level's codes: (batch, steps / stride)."""
        residual, codes = latents, []
        for stride, book in zip(STRIDES, self.books, strict=True):
            pooled = _pooled(residual, stride)
            codes.append(_nearest(pooled.flatten(0, 1), book).unflatten(0, pooled.shape[:2]))
            residual = residual - book[codes[-1]].repeat_interleave(stride, dim=1)
        return codes

    def latents(self, codes: Sequence[Tensor]) -> Tensor:
        """The inverse of `codes`, but for what they leave."""
        parts = (
            book[level].repeat_interleave(stride, dim=1)
            for stride, book, level in zip(STRIDES, self.books, codes, strict=True)
        )
        return torch.stack(list(parts)).sum(dim=0)

    def save(self, path: Path) -> None:
        """Writes `path`, whole or not at all."""
        unfinished = path.with_suffix(".part")
        torch.save({field.name: getattr(self, field.name) for field in fields(self)}, unfinished)
        unfinished.replace(path)

    @classmethod
    def load(cls, path: Path) -> LatentSpace:
        """What `save` wrote."""
        return cls(**torch.load(path, weights_only=True))

    @torch.no_grad()
    def install(self, codec: SNAC) -> None:
        """Gives the codec's quantiser these axes and codebooks; its `codebook_dim` is one more than `width`.

        The class chooses the code whose direction is nearest. With one more coordinate, the same large number in codes
        and latents, that is the code which is nearest.
        """
        lift = LIFT * self.books.norm(dim=2).max()
        inwards = torch.linalg.pinv(self.spread)  # (width, latent_dim)
        for quantizer, book in zip(quantizers_of(codec), self.books, strict=True):
            ones = torch.ones(1, inwards.shape[1])
            quantizer.in_proj.weight = torch.cat([inwards, SELDOM * ones])[:, :, None]
            quantizer.in_proj.bias.copy_(torch.cat([torch.zeros(self.width), lift[None]]))  # type: ignore[operator]
            quantizer.out_proj.weight = torch.cat([self.spread, 0 * self.spread[:, :1]], dim=1)[:, :, None]
            quantizer.out_proj.bias.zero_()  # type: ignore[operator]
            quantizer.codebook.weight.copy_(torch.cat([book, lift.expand(len(book), 1)], dim=1))


def fitted(steps: Tensor, width: int, codes: int, latent_dim: int) -> LatentSpace:
    """The space of (n, STEP_WIDTH) spectra, n a multiple of four, with `codes` codes a level."""
    draw = torch.Generator().manual_seed(0)
    mean = steps.mean(dim=0)
    covariance = (steps - mean).T @ (steps - mean) / len(steps)
    directions = torch.linalg.eigh(covariance).eigenvectors.flip(1)[:, :width]
    size = ((steps - mean) @ directions).pow(2).mean().sqrt()
    latents, books = (steps - mean) @ directions / size, []
    residual = latents
    for stride in STRIDES:
        book = means_of(_pooled(residual[None], stride)[0], codes, draw)
        residual = residual - _chosen(residual[None], stride, book)[0]
        books.append(book)
    turned = torch.linalg.qr(torch.randn(latent_dim, width, generator=draw))[0]
    spread = turned * (latent_dim / width) ** 0.5  # so that each of the many latents is about 1
    return LatentSpace(mean, directions / size, directions.T * size, torch.stack(books), spread)


def means_of(vectors: Tensor, count: int, draw: torch.Generator) -> Tensor:
    """`count` means of (n, width) vectors by k-means: (count, width)."""
    means = vectors[torch.randperm(len(vectors), generator=draw)[torch.arange(count) % len(vectors)]].clone()
    for _ in range(ITERATIONS):
        nearest = _nearest(vectors, means)
        sums = torch.zeros_like(means).index_add_(0, nearest, vectors)
        sizes = torch.bincount(nearest, minlength=count)
        means = sums / sizes.clamp_min(1)[:, None]
        empty = sizes == 0
        means[empty] = vectors[torch.randint(len(vectors), (int(empty.sum()),), generator=draw)]
    return means


def quantizers_of(codec: SNAC) -> list[VectorQuantize]:
    """The levels of its quantiser, the coarsest first."""
    return list(codec.quantizer.quantizers)  # type: ignore[arg-type]


def _pooled(latents: Tensor, stride: int) -> Tensor:
    return latents.unflatten(1, (-1, stride)).mean(dim=2)


def _chosen(latents: Tensor, stride: int, book: Tensor) -> Tensor:
    """The codes of one level, each as long as its stride: (batch, steps, width)."""
    pooled = _pooled(latents, stride)
    return book[_nearest(pooled.flatten(0, 1), book)].view_as(pooled).repeat_interleave(stride, dim=1)


def _nearest(vectors: Tensor, means: Tensor) -> Tensor:
    squares = means.pow(2).sum(dim=1)
    return torch.cat([(squares - 2 * part @ means.T).argmin(dim=1) for part in vectors.split(8192)])
