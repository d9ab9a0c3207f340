"""What the codec is told about its sound: log-mel differences at several resolutions, and envelopes as STOI hears them.

Nothing here knows the codec. All waveforms are (batch, samples) float32 at 24 kHz.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from training.standin.speech import SAMPLE_RATE_HZ

MEL_WINDOWS = ((2048, 80), (1024, 80), (512, 64), (256, 32))  # (samples, mel bands)


@functools.cache
def mel_bank(window: int, bands: int) -> Tensor:
    """Triangular HTK mel filters: (bands, window // 2 + 1) float32, each of unit sum."""
    hz_to_mel = 2595 * math.log10(1 + SAMPLE_RATE_HZ / 2 / 700)
    edges_hz = 700 * (10 ** (np.linspace(0, hz_to_mel, bands + 2) / 2595) - 1)
    bins_hz = np.linspace(0, SAMPLE_RATE_HZ / 2, window // 2 + 1)
    rising = (bins_hz - edges_hz[:-2, None]) / (edges_hz[1:-1] - edges_hz[:-2])[:, None]
    falling = (edges_hz[2:, None] - bins_hz) / (edges_hz[2:] - edges_hz[1:-1])[:, None]
    bank = np.maximum(0, np.minimum(rising, falling))
    return torch.from_numpy((bank / np.maximum(bank.sum(1, keepdims=True), 1e-3)).astype(np.float32))


class SpectralLoss(torch.nn.Module):
    """Log-mel L1 plus 0.1 spectral convergence, averaged over four window lengths.

    Magnitudes far below `quietest` (of a window of 1,024 samples, others in proportion) are alike.
    """

    def __init__(self, quietest: float = 0.0) -> None:
        super().__init__()
        self.quietest = quietest
        for window, bands in MEL_WINDOWS:
            self.register_buffer(f"bank{window}", mel_bank(window, bands))
            self.register_buffer(f"hann{window}", torch.hann_window(window))

    def forward(self, heard: Tensor, spoken: Tensor) -> Tensor:
        """Two (batch, samples) float32 waveforms -> scalar."""
        losses = []
        for window, _ in MEL_WINDOWS:
            hann, bank = self.get_buffer(f"hann{window}"), self.get_buffer(f"bank{window}")
            spectra = [
                torch.stft(wave, window, window // 4, window=hann, return_complex=True).abs().clamp_min(1e-5)
                for wave in (heard, spoken)
            ]  # each (batch, window // 2 + 1, hops)
            floor = self.quietest * window / 1024
            mels = [((bank @ spectrum).clamp_min(1e-4) + floor).log() for spectrum in spectra]
            convergence = torch.linalg.norm(spectra[0] - spectra[1]) / torch.linalg.norm(spectra[1])
            losses.append(functional.l1_loss(mels[0], mels[1]) + 0.1 * convergence)
        return torch.stack(losses).mean()


class EnvelopeLoss(torch.nn.Module):
    """One minus the mean correlation of third-octave envelopes over 384 ms, the heart of STOI (Taal et al. 2011)."""

    WINDOW, HOP, SEGMENT_HOPS, BANDS, LOWEST_HZ = 614, 307, 30, 15, 150.0

    def __init__(self) -> None:
        super().__init__()
        bins_hz = torch.linspace(0, SAMPLE_RATE_HZ / 2, 513)
        centres_hz = self.LOWEST_HZ * 2 ** (torch.arange(self.BANDS) / 3)
        edges_hz = centres_hz * 2 ** (-1 / 6), centres_hz * 2 ** (1 / 6)
        inside = (bins_hz >= edges_hz[0][:, None]) & (bins_hz < edges_hz[1][:, None])
        self.register_buffer("bands", inside.float())  # (BANDS, 513)
        self.register_buffer("hann", torch.hann_window(self.WINDOW))

    def forward(self, heard: Tensor, spoken: Tensor) -> Tensor:
        """Two (batch, samples) float32 waveforms -> scalar; segments without speech do not count."""
        bands, hann = self.get_buffer("bands"), self.get_buffer("hann")
        centred = []
        for wave in (heard, spoken):
            spectrum = torch.stft(wave, 1024, self.HOP, self.WINDOW, hann, return_complex=True)
            envelope = (bands @ (spectrum.real**2 + spectrum.imag**2) + 1e-7).sqrt()  # (batch, BANDS, hops)
            segments = envelope.unfold(2, self.SEGMENT_HOPS, 3)  # (batch, BANDS, segments, SEGMENT_HOPS)
            centred.append(segments - segments.mean(dim=3, keepdim=True))
        norms = [segments.norm(dim=3) for segments in centred]
        correlation = (centred[0] * centred[1]).sum(dim=3) / (norms[0] * norms[1] + 1e-4)
        speech = norms[1] > 0.05 * norms[1].amax(dim=(1, 2), keepdim=True)
        audible = speech & (norms[1] > 0.05)
        return 1 - (correlation * audible).sum() / audible.sum().clamp_min(1)
