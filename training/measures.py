"""Measurements of utterances: silences, ends, levels, pace, words, and how near the voice is to its speaker.

Every function takes audio as a listener got it, and gives None where there is nothing to measure. Thresholds are the
gate's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from app.realtime.background import Spoken
from app.speech.audio import Samples, duration_s, head_silence_s, onset_s, rms_dbfs, silence_runs
from app.speech.utterance_checks import MAX_CLIPPED_SHARE, clipped_share
from training.closeness import VoicePrint, distance, voice_print

SILENT_DBFS = -50.0  # of a whole utterance: a whisper is louder


@dataclass(frozen=True)
class Closeness:
    """Distances (`training.closeness`, nats) from the speaker to the clone, to base voices, and to the speaker."""

    clone: float
    bases: Mapping[str, float]
    speaker: float | None


def head_silences_ms(utterances: Sequence[Spoken]) -> list[float]:
    """The silence before each utterance's speech; all of it where there is none."""
    return [1000 * head_silence_s(spoken.samples, spoken.sample_rate_hz) for spoken in utterances]


def percentile(values: Sequence[float], percent: float) -> float | None:
    """By linear interpolation; None without values."""
    return float(np.percentile(values, percent)) if values else None


def ended_share(utterances: Sequence[Spoken]) -> float | None:
    """The share that the model ended by itself."""
    return sum(spoken.complete for spoken in utterances) / len(utterances) if utterances else None


def longest_silence_s(utterances: Sequence[Spoken]) -> float | None:
    """The longest silence of any utterance after its speech has begun."""
    return max((_longest_silence_s(spoken) for spoken in utterances), default=None)


def _longest_silence_s(spoken: Spoken) -> float:
    onset = onset_s(spoken.samples, spoken.sample_rate_hz)
    if onset is None:
        return 0.0
    return max(
        (end - max(start, onset) for start, end in silence_runs(spoken.samples, spoken.sample_rate_hz)), default=0
    )


def sound_share(utterances: Sequence[Spoken]) -> float | None:
    """The share that is neither silent nor clipped."""
    return sum(_is_sound(spoken.samples) for spoken in utterances) / len(utterances) if utterances else None


def _is_sound(samples: Samples) -> bool:
    return rms_dbfs(samples) > SILENT_DBFS and clipped_share(samples) <= MAX_CLIPPED_SHARE


def pace_ratio(utterances: Sequence[Spoken], seconds_per_char: float) -> float | None:
    """The median of each utterance's length over that of the same text at `seconds_per_char`."""
    ratios = [_length_s(spoken) / (seconds_per_char * len(spoken.text)) for spoken in utterances]
    return median(ratios) if ratios else None


def length_ratio(utterances: Sequence[Spoken], others: Sequence[Spoken]) -> float | None:
    """The median of each utterance's length from its onset over that of the same text in `others`."""
    by_text = {spoken.text: length for spoken in others if (length := _length_from_onset_s(spoken)) > 0}
    ratios = [_length_from_onset_s(spoken) / by_text[spoken.text] for spoken in utterances if spoken.text in by_text]
    return median(ratios) if ratios else None


def _length_s(spoken: Spoken) -> float:
    return duration_s(spoken.samples, spoken.sample_rate_hz)


def _length_from_onset_s(spoken: Spoken) -> float:
    return _length_s(spoken) - head_silence_s(spoken.samples, spoken.sample_rate_hz)


def closeness(
    speaker: Sequence[Spoken], clone: Sequence[Spoken], bases: Mapping[str, Sequence[Spoken]]
) -> Closeness | None:
    """How near the voices are to the speaker's recordings; None where there is too little speech.

    The speaker's distance to themselves is that of every other recording to the rest.
    """
    of_speaker, of_clone = _print(speaker), _print(clone)
    if of_speaker is None or of_clone is None:
        return None
    of_bases = {name: made for name, spoken in bases.items() if (made := _print(spoken)) is not None}
    halves = _print(speaker[::2]), _print(speaker[1::2])
    return Closeness(
        clone=distance(of_speaker, of_clone),
        bases={name: distance(of_speaker, of_base) for name, of_base in of_bases.items()},
        speaker=None if halves[0] is None or halves[1] is None else distance(halves[0], halves[1]),
    )


def _print(utterances: Sequence[Spoken]) -> VoicePrint | None:
    if not utterances:
        return None
    return voice_print((spoken.samples for spoken in utterances), utterances[0].sample_rate_hz)
