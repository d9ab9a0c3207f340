"""The noise that the noise blocks of a codec add, as a function of an utterance's seed, the block and the position.

A stock `NoiseBlock` multiplies a projection of its input by fresh standard normal numbers, which no two decodes share.
Here the number at a position is a hash, looked up among the quantiles of the normal distribution: integer arithmetic
and a table, so that it is the same to the bit however the utterance is cut, in any batch, and on any device.

The hash is splitmix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014): the state
`seed + block + position * γ`, mixed by two multiplications. It knows no codec state and no sessions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from operator import mul
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from snac import SNAC
from snac.layers import NoiseBlock
from torch import Tensor

_BITS = 16
"""Of the hash that choose a quantile: 65,536 numbers as far as 4.3 from the mean, closer together than PCM's steps."""


def _signed(word: int) -> int:
    """The int64 of the same 64 bits, which is what torch multiplies."""
    return (word & (1 << 64) - 1) - (1 << 64 if word >> 63 & 1 else 0)


_GAMMA = _signed(0x9E3779B97F4A7C15)
_MIX = (_signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB))


def noise_seed(first_frame: NDArray[np.integer]) -> int:
    """The seed (int64) of an utterance, of the codes of its first frame [tokens_per_frame].

    So a decode depends on nothing but codes: with them goes the noise, as to a worker that a session moves to.
    """
    return _word_of(first_frame.astype("<u2").tobytes())


def _word_of(name: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little", signed=True)


@dataclass(frozen=True, slots=True)
class NoiseSite:
    """A noise block: the `block`-th, of `rate` positions per latent step, `delay` positions behind the codes."""

    block: int
    rate: int
    delay: int = 0


class CodecNoise:
    """The noise of the blocks at `sites`."""

    def __init__(self, sites: Sequence[NoiseSite], device: torch.device, dtype: torch.dtype) -> None:
        self._sites = sites
        self._device = device
        self._quantiles = _normal_quantiles().to(device, dtype)
        self._places: dict[int, tuple[Tensor, Tensor]] = {}

    def draw(self, seeds: Tensor, first_steps: Tensor, steps: int) -> tuple[Tensor, ...]:
        """For rows of `seeds` [batch] that begin with `first_steps` [batch] (int64): [batch, steps * rate, 1] a block.

        Made of tensors alone, without a branch on their values, as a CUDA graph needs it.
        """
        places, strides = self._places_of(steps)
        state = torch.addcmul(places, first_steps[:, None], strides).add_(seeds[:, None])
        for shift, factor in zip((30, 27), _MIX, strict=True):
            state.bitwise_xor_(_shifted(state, shift)).mul_(factor)
        noise = self._quantiles[_shifted(state, 64 - _BITS)]
        return tuple(part[..., None] for part in noise.split([steps * site.rate for site in self._sites], dim=1))

    def _places_of(self, steps: int) -> tuple[Tensor, Tensor]:
        """[total], twice: what block and position add to the state, and what each latent step before them does."""
        if steps not in self._places:
            places, strides = [], []
            for site in self._sites:
                positions = torch.arange(-site.delay, steps * site.rate - site.delay, device=self._device)
                places.append(positions * _GAMMA + _word_of(f"block {site.block}".encode()))
                strides.append(torch.full_like(positions, site.rate) * _GAMMA)
            self._places[steps] = torch.cat(places), torch.cat(strides)
        return self._places[steps]


def _shifted(state: Tensor, bits: int) -> Tensor:
    """Shifted right, zeros following: torch's own shift of int64 repeats the sign."""
    return (state >> bits).bitwise_and_((1 << 64 - bits) - 1)


def _normal_quantiles() -> Tensor:
    """[65,536]: the middle of as many equal parts of the normal distribution, scaled to a variance of 1."""
    count = 1 << _BITS
    quantiles = torch.special.ndtri((torch.arange(count, dtype=torch.float64) + 0.5) / count)
    return quantiles / quantiles.square().mean().sqrt()


@contextmanager
def noise_of(codec: SNAC, seed: int, *, first_step: int = 0) -> Iterator[None]:
    """Have the noise blocks of a stock codec add an utterance's noise, while the context lasts.

    What it decodes begins with the utterance's latent step `first_step`.
    """
    blocks = [module for module in codec.decoder.modules() if isinstance(module, NoiseBlock)]
    rates = accumulate(codec.decoder_rates, mul)
    hooks = [
        block.register_forward_hook(_NoiseInstead(NoiseSite(number, int(rate)), seed, first_step))
        for number, (block, rate) in enumerate(zip(blocks, rates, strict=False))
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@dataclass(frozen=True, slots=True)
class _NoiseInstead:
    """A hook that puts an utterance's noise in place of what a stock block has drawn."""

    site: NoiseSite
    seed: int
    first_step: int

    def __call__(self, block: NoiseBlock, inputs: tuple[Any, ...], drawn: Tensor) -> Tensor:
        x: Tensor = inputs[0]  # [batch, channels, time]
        source = CodecNoise([self.site], x.device, x.dtype)
        seeds, first_steps = torch.tensor([[self.seed], [self.first_step]], device=x.device)
        (noise,) = source.draw(seeds, first_steps, x.shape[-1] // self.site.rate)
        return x + noise.transpose(1, 2) * block.linear(x)
