"""When each phone is said, and which word it belongs to.

flite tells its own phones' times; other speakers' are found by forced alignment elsewhere. A phone is one of
`spelling.PHONES`, or PAUSE.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.standin.speech import decoded, run
from training.standin.spelling import Phones

PAUSE = "pau"
MOST_AMISS = 0.4  # of a sentence's phones: more, and the words are another sentence's


@dataclass(frozen=True)
class Segment:
    """One phone or pause, from `start_s` to `end_s`."""

    phone: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Said:
    """(samples,) float32 at 24 kHz, and its segments in their order."""

    samples: np.ndarray
    segments: tuple[Segment, ...]

    def slower(self, factor: float, samples: np.ndarray) -> Said:
        """The same segments in `samples`, which take `factor` times as long."""
        return Said(
            samples, tuple(Segment(one.phone, one.start_s * factor, one.end_s * factor) for one in self.segments)
        )


def timed_flite(text: str, flite_voice: str, stretch: float = 1.0, pitch_spread_hz: float | None = None) -> Said:
    """`text` by a flite voice, as `speech.flite` says it, with its segments."""
    command = ["flite", "-voice", flite_voice, "-psdur", "--setf", f"duration_stretch={stretch}"]
    if pitch_spread_hz is not None:
        command += ["--setf", f"int_f0_target_stddev={pitch_spread_hz}"]
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "said.wav"
        told = run([*command, "-t", text, "-o", str(path)]).decode()
        samples = decoded(path.read_bytes())
    segments, start_s = [], 0.0
    for phone, end in (part.split(":") for part in told.split()):
        segments.append(Segment(phone, start_s, float(end)))
        start_s = float(end)
    return Said(samples, tuple(segments))


def words_in(segments: Sequence[Segment], reading: Sequence[Phones]) -> list[tuple[int, int]] | None:
    """For each word of `reading`, its first segment's number and the number after its last.

    What is said may differ from what was read: both are aligned by edit distance. None where they do not fit, or a word
    was not said at all.
    """
    said = [number for number, segment in enumerate(segments) if segment.phone != PAUSE]
    read = [(phone, word) for word, phones in enumerate(reading) for phone in phones]
    costs = np.zeros((len(said) + 1, len(read) + 1))
    costs[:, 0], costs[0] = np.arange(len(said) + 1), np.arange(len(read) + 1)
    for i, number in enumerate(said, start=1):
        for j, (phone, _) in enumerate(read, start=1):
            other = _difference(segments[number].phone, phone)
            costs[i, j] = min(costs[i - 1, j - 1] + other, costs[i - 1, j] + 1, costs[i, j - 1] + 1)
    if not read or costs[-1, -1] > MOST_AMISS * len(read):
        return None
    owners = [0] * len(said)
    i, j = len(said), len(read)
    while i:
        if j and costs[i, j] == costs[i, j - 1] + 1:
            j -= 1
        elif j and costs[i, j] == costs[i - 1, j - 1] + _difference(segments[said[i - 1]].phone, read[j - 1][0]):
            owners[i - 1] = read[j - 1][1]
            i, j = i - 1, j - 1
        else:
            owners[i - 1] = read[max(j - 1, 0)][1]
            i -= 1
    spans = []
    for word in range(len(reading)):
        mine = [number for number, owner in zip(said, owners, strict=True) if owner == word]
        if not mine:
            return None
        spans.append((mine[0], mine[-1] + 1))
    return spans


_VOWELS = frozenset(["aa", "ae", "ah", "ao", "aw", "ax", "ay", "eh", "er", "ey", "ih", "iy", "ow", "oy", "uh", "uw"])


def _difference(said: str, read: str) -> float:
    """Of two phones: vowels are taken for each other easily."""
    return 0.0 if said == read else 0.6 if said in _VOWELS and read in _VOWELS else 1.2
