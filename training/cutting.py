"""Silence trimming and cutting, from a recording to clips: where, what silence to keep, how loud. Pure, over arrays.

Whatever is cut away at a head or inside a pause is a whole number of codec frames, counted from the recording's own
start: the codec then sees the same frames as in the whole recording, which matters the more the coarser its frames are.
So heads and pauses come out within half a frame (43 ms) of what is configured. Levels are those of `app.speech.audio`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.signal import butter, sosfiltfilt

from app.platform.loudness import measure
from app.speech.audio import HOP_S, LOUDEST_DBFS, MARGIN_DB, Samples, crossfade_join, hop_levels_dbfs, speech_runs
from app.speech.recipe import PrepareConfig

Span = tuple[int, int]
"""Samples from (inclusive) and to (exclusive)."""

BROADCAST_LUFS = -23.0
FADE_S = 0.01
SHORTEST_HEAD_S = 0.01
ONSET_GUARD_S = 0.02  # how much earlier than detected the next words may begin
LONGEST_JOINED_PAUSE_S = 2.0
BREATH_S = 0.1  # a pause at which too long a run may be cut in need
_FILTER_BLOCK_S, _FILTER_CONTEXT_S = 60.0, 1.0


@dataclass(frozen=True)
class Grid:
    """The codec's frames."""

    sample_rate_hz: int
    frame_samples: int

    def samples(self, seconds: float) -> int:
        return round(seconds * self.sample_rate_hz)

    def seconds(self, samples: int) -> float:
        return samples / self.sample_rate_hz


@dataclass(frozen=True)
class Recording:
    """A decoded recording at a level where speech is about as loud as the clips will be; `gain_db` brought it there.

    `runs` are the spans of speech between pauses; `tone` is a stretch of the room, as long as could be found.
    """

    samples: Samples
    gain_db: float
    runs: list[Span]
    tone: Samples

    @property
    def speech(self) -> Span:
        """From the first words to the last."""
        return self.runs[0][0], self.runs[-1][1]


@dataclass(frozen=True)
class Cut:
    """One clip of whole frames that begins at `start` in the recording; the seconds say what was done to it."""

    samples: Samples
    start: int
    speech: Span
    head_s: float
    shortened_s: float = 0.0
    added_s: float = 0.0


def high_pass(samples: Samples, sample_rate_hz: int, cutoff_hz: float) -> None:
    """Filters in place, second order and zero phase, block by block with context: a long file needs little memory."""
    if not cutoff_hz or len(samples) < sample_rate_hz // 10:
        return
    sections = butter(2, cutoff_hz, "highpass", fs=sample_rate_hz, output="sos")
    block, context = round(_FILTER_BLOCK_S * sample_rate_hz), round(_FILTER_CONTEXT_S * sample_rate_hz)
    before = np.zeros(0, np.float32)
    for start in range(0, len(samples), block):
        stop = min(start + block, len(samples))
        whole = np.concatenate([before, samples[start : stop + context]])
        before_length, before = len(before), samples[max(stop - context, start) : stop].copy()
        filtered = sosfiltfilt(sections, whole, padlen=min(len(whole) - 1, context))
        samples[start:stop] = filtered[before_length : before_length + stop - start]


def speech_level_dbfs(samples: Samples, sample_rate_hz: int) -> float | None:
    """The RMS level of the hops that stand above the room; None where none do.

    Unlike `speech_threshold_dbfs` it does not depend on how loud the whole recording is.
    """
    levels = hop_levels_dbfs(samples, sample_rate_hz)
    if not len(levels):
        return None
    loud = levels[levels > max(np.quantile(levels, 0.1) + MARGIN_DB, levels.max() - 40.0)]
    return float(10.0 * np.log10(np.mean(10.0 ** (loud / 10.0)))) if len(loud) else None


def levelled_recording(samples: Samples, gain_db: float, grid: Grid, config: PrepareConfig) -> Recording | None:
    """The recording with its gain applied (in place), its speech found; None where there is no speech."""
    samples *= np.float32(10.0 ** (gain_db / 20.0))
    found = speech_runs(samples, grid.sample_rate_hz, pause_s=config.split_pause_s)
    runs = [(grid.samples(start), grid.samples(end)) for start, end in found]
    return Recording(samples, gain_db, runs, _tone_of(samples, runs, grid)) if runs else None


def segments(recording: Recording, grid: Grid, config: PrepareConfig) -> list[Span]:
    """The recording's runs of speech, long ones cut at breaths, short ones joined, towards `wanted_clip_s`.

    What stays shorter or longer than allowed is among them: the caller leaves it out and reports it.
    """
    shortest, longest = (grid.samples(wanted) for wanted in config.wanted_clip_s)
    pieces = [piece for run in recording.runs for piece in _breathed(recording, run, shortest, longest, grid)]
    joined: list[Span] = []
    for piece in pieces:
        if joined and _may_join(joined[-1], piece, shortest, longest, grid):
            joined[-1] = (joined[-1][0], piece[1])
        else:
            joined.append(piece)
    return joined


def _may_join(before: Span, after: Span, shortest: int, longest: int, grid: Grid) -> bool:
    short = min(before[1] - before[0], after[1] - after[0]) < shortest
    pause = after[0] - before[1]
    return short and after[1] - before[0] <= longest and pause <= grid.samples(LONGEST_JOINED_PAUSE_S)


def _breathed(recording: Recording, run: Span, shortest: int, longest: int, grid: Grid) -> list[Span]:
    """A run longer than wanted, cut at its longest pause that leaves neither side short; and so on."""
    if run[1] - run[0] <= longest:
        return [run]
    part = recording.samples[run[0] : run[1]]
    spoken = speech_runs(part, grid.sample_rate_hz, pause_s=BREATH_S)
    pauses = [(run[0] + grid.samples(a[1]), run[0] + grid.samples(b[0])) for a, b in pairwise(spoken)]
    pauses = [pause for pause in pauses if pause[0] - run[0] >= shortest and run[1] - pause[1] >= shortest]
    if not pauses:
        return [run]
    end, start = max(pauses, key=lambda pause: pause[1] - pause[0])
    return [
        piece
        for half in ((run[0], end), (start, run[1]))
        for piece in _breathed(recording, half, shortest, longest, grid)
    ]


def cut(recording: Recording, speech: Span, grid: Grid, config: PrepareConfig) -> Cut:
    """The clip of a span of speech: `head_s` before it, `tail_s` and more after it, its pauses shortened."""
    earliest = max((run[1] for run in recording.runs if run[1] <= speech[0]), default=0)
    following = min((run[0] for run in recording.runs if run[0] >= speech[1]), default=None)
    length = len(recording.samples)
    latest = length if following is None else max(following - grid.samples(ONSET_GUARD_S), speech[1])

    frame = grid.frame_samples
    start = frame * _start_frame(speech[0], earliest, grid, config.head_s)
    stop = start + frame * math.ceil((speech[1] + grid.samples(config.tail_s) - start) / frame)
    samples = recording.samples[start : min(stop, latest)].copy()
    if start:
        fade = grid.samples(FADE_S)
        samples[:fade] *= np.linspace(0.0, 1.0, fade, dtype=np.float32)
    missing = stop - start - len(samples)
    samples = _extended(samples, recording.tone, missing, grid)
    whole = len(samples)
    samples = _with_short_pauses(samples, grid, config.max_pause_s)
    return Cut(
        samples,
        start,
        speech,
        head_s=grid.seconds(speech[0] - start),
        shortened_s=grid.seconds(whole - len(samples)),
        added_s=grid.seconds(missing),
    )


def _start_frame(onset: int, earliest: int, grid: Grid, head_s: float) -> int:
    """The frame at which a clip begins: nearest to the wanted head, with some head at least, behind earlier words."""
    frame = grid.frame_samples
    wanted = round((onset - grid.samples(head_s)) / frame)
    latest = (onset - grid.samples(SHORTEST_HEAD_S)) // frame
    return max(min(wanted, latest), math.ceil(earliest / frame) if earliest <= onset - frame else 0, 0)


def _with_short_pauses(samples: Samples, grid: Grid, max_pause_s: float) -> Samples:
    """Takes whole frames out of the middle of each pause longer than `max_pause_s`, the last pause first."""
    spoken = speech_runs(samples, grid.sample_rate_hz, pause_s=max_pause_s)
    for before, after in reversed(list(pairwise(spoken))):
        start, stop = grid.samples(before[1]), grid.samples(after[0])
        excess = round((stop - start - grid.samples(max_pause_s)) / grid.frame_samples) * grid.frame_samples
        if excess <= 0:
            continue
        middle = start + (stop - start - excess) // 2
        seam = round(middle / grid.frame_samples) * grid.frame_samples
        fade = grid.samples(FADE_S)
        if not start <= seam <= stop - excess - fade:
            seam = middle
        samples = crossfade_join(
            samples[: seam + fade], samples[seam + excess :], grid.sample_rate_hz, fade_s=grid.seconds(fade)
        )
    return samples


def _tone_of(samples: Samples, runs: list[Span], grid: Grid) -> Samples:
    """The longest stretch without speech, less its edges; faint noise of the quietest level where there is none."""
    gaps = [(a[1], b[0]) for a, b in pairwise([(0, 0), *runs, (len(samples), len(samples))])]
    start, stop = max(gaps, key=lambda gap: gap[1] - gap[0])
    edge = grid.samples(0.03)
    if stop - start >= 4 * edge:
        tone = samples[start + edge : min(stop - edge, start + edge + grid.sample_rate_hz)]
        return tone.copy()
    levels = hop_levels_dbfs(samples, grid.sample_rate_hz)
    rms = 10.0 ** (min(float(levels.min()), LOUDEST_DBFS - MARGIN_DB) / 20.0)
    return (np.random.default_rng(0).standard_normal(grid.samples(10 * HOP_S)) * rms).astype(np.float32)


def _extended(samples: Samples, tone: Samples, missing: int, grid: Grid) -> Samples:
    """`missing` more samples of the room, the tone played there and back as often as needed."""
    if missing <= 0:
        return samples
    overlap = min(grid.samples(FADE_S), len(samples))
    there_and_back = np.concatenate([tone, tone[::-1]])
    room = np.tile(there_and_back, math.ceil((missing + overlap) / len(there_and_back)))[: missing + overlap]
    return crossfade_join(samples, room, grid.sample_rate_hz, fade_s=grid.seconds(overlap))


# Loudness


def wanted_lufs(config: PrepareConfig) -> float:
    """The loudness clips are brought to; that of broadcasting (EBU R 128) where neither model nor operator sets one."""
    return BROADCAST_LUFS if config.loudness_lufs is None else config.loudness_lufs


def clip_gain_db(samples: Samples, sample_rate_hz: int, config: PrepareConfig) -> tuple[float, float]:
    """(the gain to the wanted loudness, the gain that the true peak allows): the lesser is to be applied."""
    curve = measure(samples, sample_rate_hz)
    return wanted_lufs(config) - curve.integrated_lufs, config.max_true_peak_dbtp - curve.true_peak_dbtp
