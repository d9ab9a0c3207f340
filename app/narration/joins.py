"""Takes side by side, their silence trimmed: each keeps a little of its room, faded, with exact silence between.

A take begins and ends in whatever the voice breathed there. What is kept of that ends where it is quietest, and fades
to nothing inside it; so a gap, which is digital silence, begins and ends at a level of nothing and nothing clicks.
It knows neither files nor loudness: levels tell speech from silence, as in `app.speech.audio`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from app.speech.audio import Samples, hop_levels_dbfs, hop_samples, speech_threshold_dbfs

LEAD_S = (0.04, 0.06)
TAIL_S = (0.08, 0.12)
"""What is kept before and after speech, at least and at most: consonants begin and rooms end below the threshold."""

FADE_S = 0.015
MIN_FADE_S = 0.005
"""What a fade takes of speech that begins or ends with the take: too short to miss, long enough not to click."""

_FLOOR_SHARE = 0.02  # a take may hold hardly any silence, and what is quiet in it is still speech
_BURST_HOPS, _BURST_LOUD = 5, 3  # less than this many loud hops among this many are a click


def gap_samples(gap_s: float, sample_rate_hz: int) -> int:
    return round(gap_s * sample_rate_hz)


def speech_bounds(samples: Samples, sample_rate_hz: int) -> tuple[int, int] | None:
    """The samples [start, end) that hold all speech, to a hop; None where there is none.

    The rest that is shorter than a hop at the end counts as speech if the hop before it does.
    """
    levels = hop_levels_dbfs(samples, sample_rate_hz)
    if not len(levels):
        return None
    loud = levels > speech_threshold_dbfs(levels.tolist(), _FLOOR_SHARE)
    company = np.convolve(loud, np.ones(2 * _BURST_HOPS - 1), mode="full")[_BURST_HOPS - 1 :][: len(loud)]
    speech = np.flatnonzero(loud & (company >= _BURST_LOUD))
    if not len(speech):
        return None
    hop = hop_samples(sample_rate_hz)
    end = len(samples) if speech[-1] == len(levels) - 1 else (int(speech[-1]) + 1) * hop
    return int(speech[0]) * hop, end


def trim(samples: Samples, sample_rate_hz: int) -> tuple[Samples, int]:
    """(the take from shortly before its speech to shortly after it, shape [n], faded in and out; samples cut before it)

    Where there is no silence to cut in, nothing is cut, and MIN_FADE_S of the speech itself fade. A take without speech
    is kept whole: whatever the voice breathed was asked for.
    """
    bounds = speech_bounds(samples, sample_rate_hz)
    if bounds is None:
        return _faded(samples, *(min(round(FADE_S * sample_rate_hz), len(samples) // 2),) * 2), 0
    start, end = bounds
    first = _quietest_cut(samples[:start][::-1], LEAD_S, sample_rate_hz)
    last = _quietest_cut(samples[end:], TAIL_S, sample_rate_hz)
    kept = samples[start - first : end + last]
    fades = (_fade_samples(silence, len(kept), sample_rate_hz) for silence in (first, last))
    return _faded(kept, *fades), start - first


def _quietest_cut(silence: Samples, kept_s: tuple[float, float], sample_rate_hz: int) -> int:
    """How many samples to keep of the silence next to speech, so that the fade lies where it is quietest."""
    least, most = (round(seconds * sample_rate_hz) for seconds in kept_s)
    if len(silence) <= least:
        return len(silence)
    fade = round(FADE_S * sample_rate_hz)
    reach = np.cumsum(np.concatenate([[0.0], np.square(silence[:most], dtype=np.float64)]))
    ends = np.arange(least, min(most, len(silence)) + 1)
    return int(ends[np.argmin(reach[ends] - reach[ends - fade])])


def _fade_samples(silence: int, kept: int, sample_rate_hz: int) -> int:
    shortest, longest = round(MIN_FADE_S * sample_rate_hz), round(FADE_S * sample_rate_hz)
    return min(max(silence, shortest), longest, kept // 2)


def _faded(samples: Samples, fade_in: int, fade_out: int) -> Samples:
    faded = np.array(samples, np.float32)
    faded[:fade_in] *= _rise(fade_in)
    faded[len(faded) - fade_out :] *= _rise(fade_out)[::-1]
    return faded


def _rise(count: int) -> NDArray[np.float32]:
    """A raised cosine from 0 to 1, neither included."""
    return (0.5 - 0.5 * np.cos(np.pi * (np.arange(count) + 0.5) / max(count, 1))).astype(np.float32)
