"""What a step of 512 samples sounds like: two log-mel spectra, 10.7 ms apart; and back to sound, roughly.

The bands in which consonants and vowels are told apart count more, those above 6 kHz less, so that a plain distance
between two steps is near to what is heard. Nothing here knows the codec.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from training.standin.losses import mel_bank
from training.standin.speech import SAMPLE_RATE_HZ

STEP_SAMPLES = 512
WINDOW, HOP, BANDS = 1024, 256, 80
STEP_WIDTH = BANDS * STEP_SAMPLES // HOP
FLOOR = 0.05  # of a magnitude; a little above the room tone's, whose ups and downs are worth no code
CLEAR_HZ, CLEAR_WEIGHT = (800.0, 4500.0), 1.4
HIGH_HZ, HIGH_WEIGHT = 6000.0, 0.6
LOW_HZ, LOW_WEIGHT = 100.0, 0.3
NEWTONS, TURNS, MOMENTUM = 30, 32, 0.99  # of Griffin-Lim, the fast one (Perraudin et al. 2013)


def band_weights() -> Tensor:
    """What a difference in each value of a step counts: (STEP_WIDTH,)."""
    highest_mel = 2595 * math.log10(1 + SAMPLE_RATE_HZ / 2 / 700)
    centres_hz = 700 * (10 ** (torch.linspace(0, highest_mel, BANDS + 2)[1:-1] / 2595) - 1)
    squares = torch.ones(BANDS)
    squares[(centres_hz > CLEAR_HZ[0]) & (centres_hz < CLEAR_HZ[1])] = CLEAR_WEIGHT
    squares[centres_hz > HIGH_HZ] = HIGH_WEIGHT
    squares[centres_hz < LOW_HZ] = LOW_WEIGHT
    return squares.sqrt().repeat(STEP_WIDTH // BANDS)


def steps_of(waves: Tensor) -> Tensor:
    """(batch, steps * STEP_SAMPLES) -> (batch, steps, STEP_WIDTH) weighted log-mel."""
    padded = functional.pad(waves, ((WINDOW - HOP) // 2, (WINDOW - HOP + 1) // 2))
    hann = torch.hann_window(WINDOW, device=waves.device)
    magnitudes = torch.stft(padded, WINDOW, HOP, window=hann, center=False, return_complex=True).abs()
    mels = (mel_bank(WINDOW, BANDS).to(waves.device) @ magnitudes + FLOOR).log().transpose(1, 2)
    return mels.unflatten(1, (-1, STEP_SAMPLES // HOP)).flatten(2) * band_weights().to(waves.device)


def spectra_at(samples: Tensor, centres: Tensor) -> Tensor:
    """(n,) samples and the (2 * steps,) numbers of those that windows are laid around -> (steps, STEP_WIDTH)."""
    windows = samples.unfold(0, WINDOW, 1)[centres - WINDOW // 2]
    magnitudes = torch.fft.rfft(windows * torch.hann_window(WINDOW)).abs()
    mels = (magnitudes @ mel_bank(WINDOW, BANDS).T + FLOOR).log()
    return mels.unflatten(0, (-1, STEP_SAMPLES // HOP)).flatten(1) * band_weights()


def sound_of(steps: Tensor) -> Tensor:
    """(steps, STEP_WIDTH) -> (about steps * STEP_SAMPLES,): a waveform with nearly these spectra.

    Rough, with a phase of its own making; it tells what can be understood of spectra before a decoder is trained.
    """
    bank, hann = mel_bank(WINDOW, BANDS), torch.hann_window(WINDOW)
    mels = ((steps / band_weights()).unflatten(1, (-1, BANDS)).flatten(0, 1).T.exp() - FLOOR).clamp_min(0)
    magnitudes = (torch.linalg.pinv(bank) @ mels).clamp_min(0) + 1e-4
    for _ in range(NEWTONS):  # non-negative least squares by multiplication (Lee and Seung 2001)
        magnitudes = magnitudes * (bank.T @ mels) / (bank.T @ (bank @ magnitudes) + 1e-6)
    samples = (magnitudes.shape[1] - 1) * HOP
    turns = torch.rand(magnitudes.shape, generator=torch.Generator().manual_seed(0))
    phases, last = torch.polar(torch.ones_like(turns), 2 * math.pi * turns), torch.zeros(())
    for _ in range(TURNS):
        wave = torch.istft(magnitudes * phases, WINDOW, HOP, window=hann, length=samples)
        spectrum = torch.stft(wave, WINDOW, HOP, window=hann, return_complex=True)
        moved = spectrum + MOMENTUM * (spectrum - last)
        phases, last = moved / (moved.abs() + 1e-8), spectrum
    return torch.istft(magnitudes * phases, WINDOW, HOP, window=hann, length=samples)
