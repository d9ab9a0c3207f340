"""Whether an utterance is as it should be: ended, of a likely length, without holes, loops or clipping.

The audio is judged, and what the worker reports of the codes. The bounds flag what is broken, and let pass what voices
do: a check that is wrong costs another rendering of good speech. Words are not understood here.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from app.speech.audio import Samples, speech_runs

MAX_SILENCE_S = 1.5
"""Within speech. Voices pause for up to a second between sentences."""

MAX_REPEATED_S = 1.5
"""Of codes: as long as the longest silence, for silence repeats. The stand-in's pauses take up to 0.7 s."""

FULL_SCALE = 0.999
MAX_CLIPPED_SHARE = 0.001

MIN_PACE, MAX_PACE = 0.7, 1.7
"""Bounds of the length, as shares of what the voice's pace lets expect.

Measured on the stand-in, 42 utterances of 39 to 232 characters, from the first sound to the last: 0.058 to 0.087 s a
character, 0.80 to 1.17 of a voice's median. Where it skips words, in texts of 385 characters and more, longer than it
was trained on, 0.35 to 0.69.
"""

FASTEST_S_PER_CHAR, SLOWEST_S_PER_CHAR = 0.035, 0.16
"""Bounds of the length where the voice's pace is not known: from twice as fast to half as fast as English is read."""

SHORT_S, LONG_S = 0.4, 1.5
"""What the bounds leave besides: a word may be swallowed, or drawn out with a pause after it."""

WIDE_CHARS = 3
"""A Chinese, Japanese or Korean character is a syllable, as long as about three letters."""

_ORDER = ("unfinished", "too_short", "too_long", "silence", "repetition", "clipping")
_MISSING_WORDS = frozenset({"unfinished", "too_short"})


def checked(
    samples: Samples,
    sample_rate_hz: int,
    text: str,
    *,
    complete: bool,
    repeated_s: float,
    seconds_per_char: float | None = None,
) -> tuple[str, ...]:
    """The names of the checks that an utterance of `text` fails, in this order; none is as it should be.

        unfinished  the model did not end it by itself (`complete`)
        too_short   words are missing, by the voice's pace `seconds_per_char` or any voice's
        too_long    it rambles on
        silence     there is no speech, or a hole of more than MAX_SILENCE_S within it
        repetition  the codes repeat for more than MAX_REPEATED_S (`repeated_s`)
        clipping    more than MAX_CLIPPED_SHARE of the samples are at full scale

    Silence before and after the speech is no fault: it is cut off.
    """
    runs = speech_runs(samples, sample_rate_hz)
    shortest_s, longest_s = likely_lengths_s(text, seconds_per_char)
    spoken_s = runs[-1][1] - runs[0][0] if runs else 0.0
    holes_s = [start - end for (_, end), (start, _) in pairwise(runs)]
    failed = {
        "unfinished": not complete,
        "too_short": spoken_s < shortest_s,
        "too_long": spoken_s > longest_s,
        "silence": not runs or max(holes_s, default=0.0) > MAX_SILENCE_S,
        "repetition": repeated_s > MAX_REPEATED_S,
        "clipping": clipped_share(samples) > MAX_CLIPPED_SHARE,
    }
    return tuple(name for name in _ORDER if failed[name])


def speech_s(samples: Samples, sample_rate_hz: int) -> float:
    """From the first sound to the last: what a voice's pace is measured by."""
    runs = speech_runs(samples, sample_rate_hz)
    return runs[-1][1] - runs[0][0] if runs else 0.0


def better(flags: Sequence[str], than: Sequence[str]) -> bool:
    """Whether a take with these failed checks is to be kept rather than another: words before beauty, then fewer."""
    return _badness(flags) < _badness(than)


def likely_lengths_s(text: str, seconds_per_char: float | None = None) -> tuple[float, float]:
    """Between how many seconds `text` takes from the first sound to the last, at the voice's pace or at any voice's."""
    chars = sum(WIDE_CHARS if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)
    if seconds_per_char is None:
        fastest, slowest = FASTEST_S_PER_CHAR, SLOWEST_S_PER_CHAR
    else:
        fastest, slowest = MIN_PACE * seconds_per_char, MAX_PACE * seconds_per_char
    return max(0.0, fastest * chars - SHORT_S), slowest * chars + LONG_S


def clipped_share(samples: Samples) -> float:
    """How many of the samples are at full scale."""
    return float(np.mean(np.abs(samples) >= FULL_SCALE)) if len(samples) else 0.0


def _badness(flags: Sequence[str]) -> tuple[bool, bool, int]:
    return "silence" in flags and "too_short" in flags, not _MISSING_WORDS.isdisjoint(flags), len(flags)
