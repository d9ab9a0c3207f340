"""Speech on the codec's grid: every word begins with a frame, so that a word is nearly the same codes wherever it is.

A sentence is not cut and not resampled: its spectra are taken where a word stretched to whole frames would have them.
What is found are codes of the true spectra (`latents`), without the codec's encoder. Nothing here knows texts' tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from training.standin.frames import interleaved
from training.standin.latents import LatentSpace
from training.standin.spectra import HOP, STEP_SAMPLES, WINDOW, spectra_at
from training.standin.speech import FRAME_SAMPLES, SAMPLE_RATE_HZ, room_tone
from training.standin.timing import PAUSE, Said

FRAME_STEPS = FRAME_SAMPLES // STEP_SAMPLES
RELEASE_S, ATTACK_S = 0.05, 0.015  # of a pause, which belong to the word before it and to the word after it
SHORT_PAUSE_FRAMES = 2
NOTHING = -1


@dataclass(frozen=True)
class Spoken:
    """A sentence's frames between silence.

    `frames` is (n, 7) codes; `segments` (n, 4) the number of the segment that each step says, or NOTHING; `starts` the
    first frame of each word, and after the last word's the number of frames; `ends` the frame after each word.
    """

    frames: np.ndarray
    segments: np.ndarray
    starts: np.ndarray
    ends: np.ndarray


def on_grid(said: Said, words: Sequence[tuple[int, int]], space: LatentSpace) -> Spoken:
    """`said` with each of its `words` (numbers of segments, from and to) stretched to whole frames."""
    sources, targets, starts, ends = [], [], [], []
    done = 0
    for number, (first, after) in enumerate(words):
        start_s, end_s = said.segments[first].start_s, said.segments[after - 1].end_s
        if first == 0 or said.segments[first - 1].phone == PAUSE:
            start_s -= ATTACK_S
        if after == len(said.segments) or said.segments[after].phone == PAUSE:
            end_s += RELEASE_S
        count = max(1, round((end_s - start_s) * SAMPLE_RATE_HZ / FRAME_SAMPLES))
        sources.append((start_s, end_s))
        targets.append((done, done + count))
        starts.append(done)
        ends.append(done + count)
        last = number + 1 == len(words)
        done += count + (0 if last or after == words[number + 1][0] else SHORT_PAUSE_FRAMES)
    centres = np.full(done * FRAME_SAMPLES // HOP, -1.0)
    when = (np.arange(len(centres)) + 0.5) * HOP / FRAME_SAMPLES  # in frames
    for (start_s, end_s), (first, after) in zip(sources, targets, strict=True):
        inside = (when >= first) & (when < after)
        centres[inside] = start_s + (end_s - start_s) * (when[inside] - first) / (after - first)
    return _coded(said, centres, np.array([*starts, done]), np.array(ends), space)


def as_said(said: Said, words: Sequence[tuple[int, int]], space: LatentSpace) -> Spoken:
    """`said` in its own time, up to the frame in which it ends."""
    start_s = said.segments[words[0][0]].start_s - ATTACK_S
    end_s = said.segments[words[-1][1] - 1].end_s + RELEASE_S
    count = int(np.ceil((end_s - start_s) * SAMPLE_RATE_HZ / FRAME_SAMPLES))
    centres = start_s + (np.arange(count * FRAME_SAMPLES // HOP) + 0.5) * HOP / SAMPLE_RATE_HZ
    frame_of = FRAME_SAMPLES / SAMPLE_RATE_HZ
    starts = [int((said.segments[first].start_s - start_s) / frame_of) for first, _ in words]
    ends = [int(np.ceil((said.segments[after - 1].end_s - start_s) / frame_of)) for _, after in words]
    return _coded(said, centres, np.array([*starts, count]), np.array(ends), space)


def silent_frame(space: LatentSpace) -> np.ndarray:
    """The codes of a frame of room tone: (1, 7)."""
    return interleaved(space.codes(space.of(torch.from_numpy(room_tone(3))[None])))[1:2]


def _coded(said: Said, centres_s: np.ndarray, starts: np.ndarray, ends: np.ndarray, space: LatentSpace) -> Spoken:
    """The codes of spectra around `centres_s`, two a step; a negative one hears room tone."""
    samples = np.concatenate([room_tone(1), said.samples, room_tone(1)])
    where = np.where(centres_s < -0.05, 0, np.round(centres_s * SAMPLE_RATE_HZ) + FRAME_SAMPLES).astype(np.int64)
    where = where.clip(WINDOW // 2, len(samples) - WINDOW // 2)
    spectra = spectra_at(torch.from_numpy(samples), torch.from_numpy(where))
    latents = ((spectra - space.mean) @ space.axes)[None]
    middles_s = centres_s.reshape(-1, FRAME_STEPS, STEP_SAMPLES // HOP).mean(axis=2)
    bounds_s = np.array([segment.end_s for segment in said.segments])
    segments = np.searchsorted(bounds_s, middles_s).clip(0, len(bounds_s) - 1)
    paused = np.array([segment.phone == PAUSE for segment in said.segments])
    segments = np.where((middles_s < 0) | paused[segments], NOTHING, segments)
    return Spoken(interleaved(space.codes(latents)), segments, starts, ends)
