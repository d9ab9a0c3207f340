"""Trains the encoder to give the latents of `latents`: a regression, of which every step of sound is an example.

Its first layers, which would be most of the work, are not trained as they are: they only have to be a bank of filters,
one in 64 samples, which is one convolution while it is trained and is folded into them at the end (`folded`).
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from snac import SNAC
from torch import Tensor, nn
from torch.nn import functional

from training.standin.latents import LatentSpace
from training.standin.listening import Listening
from training.standin.progress import SAVED_EVERY, device_here, resumed, save, set_rate
from training.standin.speech import SAMPLE_RATE_HZ

logger = logging.getLogger(__name__)

STEPS, PEAK_RATE, BATCH, FRAMES = 4000, 2e-3, 8, 20
EDGE_STEPS = 4  # of a crop, where the encoder does not hear what the spectra do
FRONT_BLOCKS = 3  # of `snac.Encoder`: 24 kHz to 375 Hz
TAPS, STRIDE = 128, 64
PHASES = 8  # samples of a step of the first block; each is a channel of its own
LOWEST_HZ, HIGHEST_HZ, LEAST_SPACING_HZ = 70.0, 10_500.0, 80.0
LOUDNESS = 0.7  # of a filter's output, on average, so that all are equally easy to learn from
STRAIGHT = 1e-6  # of a Snake: its bend is a millionth


class Front(nn.Module):
    """A bank of filters, a cosine and a sine of each frequency, once in 64 samples."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.filters = nn.Parameter(windowed_waves(channels // 2))

    def forward(self, waves: Tensor) -> Tensor:
        """(batch, samples) -> (batch, channels, samples / 64)."""
        return functional.conv1d(waves[:, None], self.filters[:, None], stride=STRIDE, padding=(TAPS - STRIDE) // 2)

    @torch.no_grad()
    def even_out(self, waves: Tensor) -> None:
        """Scales the filters so that all are equally loud, on `waves`."""
        power = self(waves).square().mean(dim=(0, 2)).unflatten(0, (2, -1)).mean(dim=0)
        self.filters *= (LOUDNESS / power.sqrt()).repeat(2)[:, None]


def windowed_waves(frequencies: int) -> Tensor:
    """Cosines, then sines, of `frequencies` frequencies under a Hann window, denser where they are low: (2 n, TAPS)."""
    low, high = 0.0, 1.0  # growth of the spacing, by bisection
    for _ in range(40):
        growth = (low + high) / 2
        low, high = (low, growth) if _spaced(frequencies, growth)[-1] > HIGHEST_HZ else (growth, high)
    when = np.arange(TAPS) - (TAPS - 1) / 2
    turns = 2 * np.pi * _spaced(frequencies, low)[:, None] / SAMPLE_RATE_HZ * when
    window = np.hanning(TAPS + 2)[1:-1]
    return torch.from_numpy(np.concatenate([np.cos(turns), np.sin(turns)]) * window * 2 / window.sum()).float()


def _spaced(count: int, growth: float) -> np.ndarray:
    """`count` frequencies in Hz, each above the last by a share of it, or by the least spacing."""
    centres_hz = [LOWEST_HZ]
    while len(centres_hz) < count:
        centres_hz.append(centres_hz[-1] + max(LEAST_SPACING_HZ, centres_hz[-1] * growth))
    return np.array(centres_hz)


@torch.no_grad()
def folded(front: Front, codec: SNAC) -> None:
    """Makes the codec's first layers give what `front` gives.

    The first block's output is the samples themselves, eight at a time, in its first eight channels; the second
    block's strided convolution sees sixteen such steps: the 128 samples of a filter. What else is in the blocks is
    switched off, and may be trained.
    """
    blocks: Any = codec.encoder.block
    first, one, two = blocks[:FRONT_BLOCKS]
    passing = first.weight.clone()
    passing[0] = 0
    passing[0, 0, passing.shape[2] // 2] = 1
    first.weight = passing
    first.bias.zero_()
    for block in (one, two):
        for unit in block.block[:3]:
            unit.block[3].parametrizations.weight.original0.zero_()
            unit.block[3].bias.zero_()
        block.block[3].alpha.fill_(STRAIGHT)
        block.block[4].bias.zero_()
    gathering = one.block[4].weight.clone()
    gathering[:PHASES] = 0
    gathering[torch.arange(PHASES), 0, PHASES // 2 + torch.arange(PHASES)] = 1
    one.block[4].weight = gathering
    filtering = torch.zeros_like(two.block[4].weight)
    filtering[:, :PHASES] = front.filters.unflatten(1, (-1, PHASES)).transpose(1, 2)
    two.block[4].weight = filtering


def unfolded(codec: SNAC) -> Tensor:
    """The filters that `folded` gave to the codec: (filters, TAPS)."""
    blocks: Any = codec.encoder.block
    filtering: Tensor = blocks[FRONT_BLOCKS - 1].block[4].weight
    return filtering[:, :PHASES].transpose(1, 2).flatten(1).detach()


class Regression(nn.Module):
    """The encoder as it is trained: its front as one convolution, its latents as few as there are."""

    inwards: Tensor

    def __init__(self, codec: SNAC, space: LatentSpace) -> None:
        super().__init__()
        blocks: Any = codec.encoder.block
        self.front = Front(blocks[FRONT_BLOCKS].block[0].block[0].alpha.shape[1])
        self.back: nn.Module = blocks[FRONT_BLOCKS:]
        self.register_buffer("inwards", torch.linalg.pinv(space.spread))

    def forward(self, waves: Tensor) -> Tensor:
        """(batch, samples) -> (batch, steps, width)."""
        return (self.inwards @ self.back(self.front(waves))).transpose(1, 2)


def optimiser(learner: Regression) -> torch.optim.Optimizer:
    """What trains the encoder."""
    return torch.optim.AdamW(learner.parameters(), lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.0)


def train(
    work: Path,
    codec: SNAC,
    space: LatentSpace,
    *,
    steps: int = STEPS,
    frames: int = FRAMES,
    compiled: bool = True,
) -> None:
    """Trains the encoder of `codec` for `steps` steps in all; resumes from `work/encoder.pt`.

    The filters of its front are only there: `folded` gives them to the codec.
    """
    device = device_here()
    listening = Listening.to(work, frames)
    torch.manual_seed(0)
    learner = Regression(codec, space)
    learner.front.even_out(listening.batch("filters", 60).noisy)
    learner.to(device)
    chosen = optimiser(learner)
    kept = {"learner": learner, "optimiser": chosen}
    first, began = resumed(work / "encoder.pt", kept), time.monotonic()
    latents_of = torch.compile(learner) if compiled else learner
    for step in range(first, steps):
        noisy = listening.batch(f"encoder-{step}", BATCH).noisy
        wanted = space.of(noisy).to(device)
        missed = (latents_of(noisy.to(device)) - wanted)[:, EDGE_STEPS:-EDGE_STEPS].square().mean()
        set_rate(chosen, PEAK_RATE, step, steps)
        chosen.zero_grad(set_to_none=True)
        missed.backward()
        torch.nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
        chosen.step()
        if step % 20 == 0:
            share, pace = missed.item() / wanted.square().mean().item(), (time.monotonic() - began) / (step - first + 1)
            logger.info("encoder %d unexplained %.3f %.2f s", step, share, pace)
        if (step + 1) % SAVED_EVERY == 0 or step + 1 == steps:
            save(work / "encoder.pt", kept, step + 1)
