"""Speaker similarity: a distance between two sets of recordings that needs no model and no training.

Each set becomes a `VoicePrint`: a single Gaussian of its MFCCs, which is timbre, and one of its pitch. The distance is
the symmetrised Kullback-Leibler divergence of both (Mandel & Ellis, "Song-level features and support vector machines
for music classification", ISMIR 2005), in nats: 0 for the same set, without an upper end, smaller for voices more
alike. It says which of several voices is nearest; it does not say who speaks, and noise or a codec counts as timbre.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dct, next_fast_len

from app.speech.audio import Samples, hop_levels_dbfs, hop_samples, speech_threshold_dbfs

Matrix = NDArray[np.float64]

WINDOW_S = 0.025
MEL_BANDS = 40
HIGHEST_HZ = 7600.0  # below half of 16 kHz, the lowest rate a recording may have
COEFFICIENTS = 19  # MFCC 1-19; the first of Mandel & Ellis's 20 is the level, which the microphone decides
VARIANCE_FLOOR = 1.0
"""Added to each coefficient's variance: a codec flattens coefficients that hardly vary, and they alone would decide.
Measured with Heron's words through the first stand-in's codec: to himself as recorded 10, to Rook 25 and to Wren 41
through the same codec; without the floor 76, 102 and 228."""

MIN_FRAMES = 300  # 3 s of speech; fewer frames give no covariance worth the name

PITCH_WINDOW_S = 0.04
PITCH_RANGE_HZ = (60.0, 400.0)
VOICED_CORRELATION = 0.6
OCTAVE_SHARE = 0.9  # the shortest lag nearly as good as the best: a longer one is a multiple of the period
MIN_PITCH_SPREAD_SEMITONES = 2.0  # a synthetic voice may be flatter than a person ever is


@dataclass(frozen=True)
class VoicePrint:
    """A speaker: the mean, (COEFFICIENTS,), and covariance of the MFCCs of `frames` hops of speech, and the pitch.

    Pitch is the median and spread of the voiced hops in semitones above 1 Hz; None where too few are voiced.
    """

    mean: Matrix
    covariance: Matrix
    pitch: tuple[float, float] | None
    frames: int

    @property
    def pitch_hz(self) -> float | None:
        """The median pitch."""
        return None if self.pitch is None else float(2.0 ** (self.pitch[0] / 12.0))


def voice_print(recordings: Iterable[Samples], sample_rate_hz: int) -> VoicePrint | None:
    """The print of one speaker's recordings, each float32 mono; None for less than MIN_FRAMES hops of speech."""
    cepstra: list[Matrix] = []
    pitches: list[Matrix] = []
    for samples in recordings:
        speech = _speech_hops(samples, sample_rate_hz)
        cepstra.append(mfcc(samples, sample_rate_hz)[: len(speech)][speech])
        tones = pitch_hz(samples, sample_rate_hz)[: len(speech)][speech]
        pitches.append(tones[np.isfinite(tones)])
    frames = np.concatenate([np.zeros((0, COEFFICIENTS)), *cepstra])
    if len(frames) < MIN_FRAMES:
        return None
    return VoicePrint(
        mean=frames.mean(axis=0),
        covariance=np.cov(frames, rowvar=False).astype(np.float64) + VARIANCE_FLOOR * np.eye(COEFFICIENTS),
        pitch=_pitch_of(np.concatenate(pitches)),
        frames=len(frames),
    )


def distance(one: VoicePrint, other: VoicePrint) -> float:
    """How far apart two voices are, in nats; symmetric."""
    timbre = _divergence(one.mean, one.covariance, other.mean, other.covariance)
    if one.pitch is None or other.pitch is None:
        return timbre
    pitches = [(np.array([middle]), np.array([[spread**2]])) for middle, spread in (one.pitch, other.pitch)]
    return timbre + _divergence(*pitches[0], *pitches[1])


def _divergence(mean: Matrix, covariance: Matrix, other_mean: Matrix, other_covariance: Matrix) -> float:
    """KL(one, other) + KL(other, one) of two Gaussians; the logarithms of the determinants cancel."""
    inverse, other_inverse = np.linalg.inv(covariance), np.linalg.inv(other_covariance)
    gap = mean - other_mean
    shapes = np.trace(inverse @ other_covariance) + np.trace(other_inverse @ covariance) - 2 * len(mean)
    return float(0.5 * (shapes + gap @ (inverse + other_inverse) @ gap))


def _speech_hops(samples: Samples, sample_rate_hz: int) -> NDArray[np.bool_]:
    """Which hops are speech, by level."""
    levels = hop_levels_dbfs(samples, sample_rate_hz)
    if not len(levels):
        return np.zeros(0, np.bool_)
    return levels > speech_threshold_dbfs(levels.tolist(), floor_share=0.1)


def mfcc(samples: Samples, sample_rate_hz: int) -> Matrix:
    """MFCC 1 to COEFFICIENTS of each hop: [hops, COEFFICIENTS]."""
    windows = _windows(samples, sample_rate_hz, WINDOW_S)
    size = next_fast_len(windows.shape[1])
    power = np.abs(np.fft.rfft(windows * np.hamming(windows.shape[1]), size)) ** 2
    bands = np.log(power @ _mel_filters(size, sample_rate_hz).T + 1e-10)
    cepstra: Matrix = np.asarray(dct(bands, type=2, axis=1, norm="ortho"))
    return cepstra[:, 1 : COEFFICIENTS + 1]


@cache
def _mel_filters(size: int, sample_rate_hz: int) -> Matrix:
    """Triangles between mel-spaced frequencies (2595 log10(1 + f/700)): [MEL_BANDS, size // 2 + 1]."""
    edges_mel = np.linspace(0.0, 2595.0 * np.log10(1 + HIGHEST_HZ / 700.0), MEL_BANDS + 2)
    edges_hz = 700.0 * (10.0 ** (edges_mel / 2595.0) - 1)
    bins_hz = np.fft.rfftfreq(size, 1 / sample_rate_hz)
    low, middle, high = (edges_hz[start : start + MEL_BANDS, None] for start in range(3))
    return np.clip(np.minimum((bins_hz - low) / (middle - low), (high - bins_hz) / (high - middle)), 0.0, None)


def pitch_hz(samples: Samples, sample_rate_hz: int) -> Matrix:
    """The pitch of each hop, [hops], NaN where it is not voiced.

    The autocorrelation of a windowed piece, divided by the window's own, has its peak at the period (Boersma,
    "Accurate short-term analysis of the fundamental frequency", IFA Proceedings 17, 1993).
    """
    windows = _windows(samples, sample_rate_hz, PITCH_WINDOW_S)
    length = windows.shape[1]
    hann: Matrix = np.hanning(length).astype(np.float64)
    shape = _autocorrelation(hann[None])[0]
    correlation = _autocorrelation((windows - windows.mean(axis=1, keepdims=True)) * hann)
    shortest, longest = (round(sample_rate_hz / hz) for hz in reversed(PITCH_RANGE_HZ))
    energy = np.maximum(correlation[:, :1], 1e-12)
    at_lags = correlation[:, shortest : longest + 1] / energy / (shape[shortest : longest + 1] / shape[0])
    best = at_lags.max(axis=1, keepdims=True)
    peaks = at_lags >= OCTAVE_SHARE * best
    peaks[:, 1:-1] &= (at_lags[:, 1:-1] >= at_lags[:, :-2]) & (at_lags[:, 1:-1] >= at_lags[:, 2:])
    lags = shortest + np.argmax(peaks, axis=1)
    return np.where(best[:, 0] >= VOICED_CORRELATION, sample_rate_hz / lags, np.nan)


def _autocorrelation(rows: Matrix) -> Matrix:
    """Of each row, for lags from 0 to its length: [rows, length]."""
    length = rows.shape[1]
    size = next_fast_len(2 * length)
    return np.fft.irfft(np.abs(np.fft.rfft(rows, size)) ** 2, size)[:, :length]


def _windows(samples: Samples, sample_rate_hz: int, window_s: float) -> Matrix:
    """Windows around the middle of each whole hop, zeros beyond the ends: [hops, window samples]."""
    hop, length = hop_samples(sample_rate_hz), round(window_s * sample_rate_hz)
    hops = len(samples) // hop
    if not hops:
        return np.zeros((0, length))
    padded = np.pad(samples.astype(np.float64), (length // 2, length))
    return np.lib.stride_tricks.sliding_window_view(padded, length)[hop // 2 :: hop][:hops]


def _pitch_of(tones_hz: Matrix) -> tuple[float, float] | None:
    """Median and spread (the interquartile range as a standard deviation) in semitones above 1 Hz."""
    if len(tones_hz) < MIN_FRAMES // 4:
        return None
    low, middle, high = np.quantile(12.0 * np.log2(tones_hz), (0.25, 0.5, 0.75))
    return float(middle), max(float(high - low) / 1.349, MIN_PITCH_SPREAD_SEMITONES)
