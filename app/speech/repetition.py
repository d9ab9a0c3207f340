"""Whether a voice got stuck: stretches in which the frames of codes repeat.

A model that has lost its way writes the same one to four frames over and over. Pauses repeat too, and are no fault as
long as they are short: what is too long, `app.speech.utterance_checks` knows. It knows neither sound nor sampling.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from app.speech.token_layout import TOKENS_PER_FRAME

MAX_PERIOD_FRAMES = 4
MIN_EQUAL_CODES = 5
"""Of the seven of a frame: a stuck voice that is sampled still wavers in its finest codes.

Measured on 48 utterances of the stand-in (two voices, 3 to 237 characters, its own temperature): the longest stretch is
7 frames (0.6 s), the silence every one of them begins with, and 6 within the speech, whether 7, 6 or 5 codes are
required; no speech repeats at all.
"""


def repeated_frames(codes: Sequence[int]) -> int:
    """The length in frames of the longest stretch that is one pattern of up to MAX_PERIOD_FRAMES, at least twice.

    `codes` are in frame order, as the model wrote them; a trailing partial frame does not count. A frame repeats the
    one a period before it if MIN_EQUAL_CODES of their codes are equal; the pattern itself is part of the stretch.
    """
    frames = np.asarray(codes, np.int64)[: len(codes) // TOKENS_PER_FRAME * TOKENS_PER_FRAME]
    frames = frames.reshape(-1, TOKENS_PER_FRAME)
    longest = 0
    for period in range(1, min(MAX_PERIOD_FRAMES, len(frames) - 1) + 1):
        repeats = np.sum(frames[period:] == frames[:-period], axis=1) >= MIN_EQUAL_CODES
        run = _longest_run(repeats)
        if run >= period:
            longest = max(longest, run + period)
    return longest


def _longest_run(flags: np.ndarray) -> int:
    """The most `True` in a row."""
    borders = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]])))
    return int(max(borders[1::2] - borders[::2], default=0))
