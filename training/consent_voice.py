"""Whether a recorded consent is spoken by the voice of the recordings, as far as a distance without a model can tell.

Measured with ten synthetic voices (flite, espeak-ng), eight sentences of each against 5 and 8 s of a consent, as
`training.closeness` has it: the same voice is at 0.8-2.7, with noise at -50 dBFS or through another microphone's filter
at up to 9.5; another voice at 4.7 and more, in the two latter cases at 7.6 and more, and at 32-37 in the median. So
there is a stretch between, of which nothing is said, and two voices that are much alike are taken for one. Persons in
rooms were not measured: an operator decides whether a consent by another voice refuses the recordings.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from app.errors import InvalidRequest
from app.speech.audio import Samples
from app.voices.audio_probe import decode
from training.closeness import distance, voice_print

SAME_NATS, OTHER_NATS = 10.0, 15.0
RATE_HZ = 24_000
MAX_CLIPS = 30
"""Of the recordings, which are one or two minutes: more would change the print no more."""


@dataclass(frozen=True)
class ConsentVoice:
    """How far the consent's voice is from the recordings', in nats; `matches` is None where that says nothing."""

    distance: float
    matches: bool | None


def consent_voice(consent: Samples, recordings: Iterable[Samples], sample_rate_hz: int) -> ConsentVoice | None:
    """Float32 mono each; None where either has less than 3 s of speech."""
    spoken = voice_print([consent], sample_rate_hz)
    reference = voice_print(islice(recordings, MAX_CLIPS), sample_rate_hz)
    if spoken is None or reference is None:
        return None
    apart = distance(spoken, reference)
    matches = True if apart <= SAME_NATS else False if apart > OTHER_NATS else None
    return ConsentVoice(round(apart, 1), matches)


def read_consent(path: Path, *, max_duration_s: float) -> Samples | None:
    """The samples at RATE_HZ; None for a file that cannot be read any more."""
    target = path.with_suffix(".f32")
    try:
        asyncio.run(decode(path, target, max_duration_s=max_duration_s, sample_rate_hz=RATE_HZ))
    except InvalidRequest:
        return None
    return np.fromfile(target, "<f4")


def told(found: ConsentVoice) -> str:
    """For the owner of the voice."""
    if found.matches is None:
        return f"Whether the consent is spoken by the voice of the recordings cannot be told ({found.distance:g} nats)."
    if found.matches:
        return f"The consent sounds like the voice of the recordings ({found.distance:g} nats apart)."
    return (
        f"The consent seems to be spoken by another voice than the recordings ({found.distance:g} nats apart; above "
        f"{OTHER_NATS:g} is another): have the speaker of the recordings read it, with the same microphone."
    )
