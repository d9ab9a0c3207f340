"""Critics that learn to tell the codec's sound from the recording, so that the decoder learns to sound like one.

Multi-period (Kong et al. 2020) and multi-resolution spectral discriminators (as in DAC, Kumar et al. 2023) with
least-squares losses and feature matching. Smaller than published ones by an order: the codec they judge is, too.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

PERIODS = (2, 3, 5, 7, 11)
WINDOWS = (2048, 1024, 512)
PERIOD_WIDTHS = (1, 16, 32, 64, 128)
SPECTRAL_WIDTHS = (2, 16, 16, 32, 32)
SLOPE = 0.1


class Critic(nn.Module):
    """Strided 2-D convolutions over some view of a waveform; gives every layer's output, the verdict last."""

    def __init__(self, widths: tuple[int, ...], kernel: tuple[int, int], stride: tuple[int, int]) -> None:
        super().__init__()
        padding = kernel[0] // 2, kernel[1] // 2
        pairs = itertools.pairwise(widths)
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv2d(narrow, wide, kernel, stride, padding)) for narrow, wide in pairs
        )
        self.verdict = weight_norm(nn.Conv2d(widths[-1], 1, (3, 1), padding=(1, 0)))

    def forward(self, view: Tensor) -> list[Tensor]:
        """(batch, channels, height, width) -> outputs."""
        outputs = []
        for layer in self.layers:
            view = functional.leaky_relu(layer(view), SLOPE)
            outputs.append(view)
        return [*outputs, self.verdict(view)]


class Critics(nn.Module):
    """All critics together; waveforms are (batch, samples) float32."""

    def __init__(self) -> None:
        super().__init__()
        self.periodic = nn.ModuleList(Critic(PERIOD_WIDTHS, (5, 1), (3, 1)) for _ in PERIODS)
        self.spectral = nn.ModuleList(Critic(SPECTRAL_WIDTHS, (3, 9), (1, 2)) for _ in WINDOWS)
        for window in WINDOWS:
            self.register_buffer(f"hann{window}", torch.hann_window(window))

    def forward(self, waves: Tensor) -> list[list[Tensor]]:
        """What every critic makes of `waves`."""
        heard = []
        for period, critic in zip(PERIODS, self.periodic, strict=True):
            whole = waves[:, : waves.shape[1] // period * period]
            heard.append(critic(whole.unflatten(1, (-1, period))[:, None]))
        for window, critic in zip(WINDOWS, self.spectral, strict=True):
            hann = self.get_buffer(f"hann{window}")
            spectrum = torch.stft(waves, window, window // 4, window=hann, return_complex=True)
            heard.append(critic(torch.view_as_real(spectrum).permute(0, 3, 2, 1)))  # (batch, 2, hops, bins)
        return heard

    def mistakes(self, recorded: Tensor, spoken: Tensor) -> Tensor:
        """The critics' own loss: recordings are 1, what the decoder says is 0."""
        pairs = zip(self(recorded), self(spoken.detach()), strict=True)
        losses = [((1 - real[-1]) ** 2).mean() + (fake[-1] ** 2).mean() for real, fake in pairs]
        return torch.stack(losses).mean()

    def reproach(self, recorded: Tensor, spoken: Tensor) -> tuple[Tensor, Tensor]:
        """The decoder's losses: that the critics can tell, and how far their layers' outputs differ (relative L1)."""
        with torch.no_grad():
            reals = self(recorded)
        told, differing = [], []
        for real, fake in zip(reals, self(spoken), strict=True):
            told.append(((1 - fake[-1]) ** 2).mean())
            differing += [
                (theirs - ours).abs().mean() / theirs.abs().mean().clamp_min(1e-4)
                for theirs, ours in zip(real[:-1], fake[:-1], strict=True)
            ]
        return torch.stack(told).mean(), torch.stack(differing).mean()
