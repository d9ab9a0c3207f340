"""Checks that a recorded consent contains the phrase and the number issued for the voice.

Its English speech is recognised in a sandbox. It does not identify the speaker.
"""

from __future__ import annotations

from pathlib import Path

from app.errors import RecordingUnfit
from app.hearing import spoken
from app.hearing.spoken import Spoken
from app.hearing.words import digits_of, edits, word_agreement
from app.platform import sandbox
from app.platform.sandbox import Limits
from app.voices import audio_probe
from app.voices.models import CONSENT_PHRASE

MIN_AGREEMENT = 0.6
"""Of the phrase's words. Synthesisers, one from 1998 among them, reached 0.8 to 1; other texts 0.3 at most."""

MAX_WRONG_DIGITS = 2
"""Of eight, misheard: another voice's number is as near in 3 of 100,000 cases."""

MAX_WRONG_BOUND_DIGITS = 1
"""Where the recogniser could choose digits alone."""

RATE_HZ = 16_000
_WORDS = CONSENT_PHRASE.partition("{number}")[0]


async def heard_consent(
    path: Path, *, name: str, language: str, number: str, max_duration_s: float, limits: Limits
) -> str | None:
    """What was heard in a consent that is one; None where nothing here hears the language.

    `number` is empty where none was issued. Raises RecordingUnfit, with what was heard, for one that is none.
    """
    if not spoken.available(language):
        return None
    samples = path.with_name(f"{path.name}.f32")
    try:
        await audio_probe.decode(
            path, samples, max_duration_s=max_duration_s, sample_rate_hz=RATE_HZ, name=name, limits=limits
        )
        grammar = spoken.digits(_WORDS, len(number)) if number else None
        heard = await spoken.hear(samples, sample_rate_hz=RATE_HZ, grammar=grammar)
    except sandbox.Fault as fault:
        raise RecordingUnfit(f"{name} {fault}.", param="recording") from None
    finally:
        samples.unlink(missing_ok=True)
    if word_agreement(_WORDS, heard.text.partition("number")[0] + " number is") < MIN_AGREEMENT:
        raise RecordingUnfit(
            f"{name} is not the consent: {_told(heard.text)}; read “{CONSENT_PHRASE.format(number=' '.join(number))}”",
            param="recording",
        )
    if number and not says(heard, number):
        raise RecordingUnfit(
            f"{name} has not the number of this voice: {_told(heard.text)}; read {' '.join(number)}, digit by digit",
            param="recording",
        )
    return heard.text


def says(heard: Spoken, number: str) -> bool:
    """Whether the number was heard; a recogniser may go on with digits that were not said."""
    _, _, behind = heard.text.lower().rpartition("number")
    found = digits_of(behind)
    nearest = min(edits(number, found[: len(number) + more]) for more in range(-1, 2))
    if nearest <= MAX_WRONG_DIGITS:
        return True
    return heard.bound is not None and edits(number, digits_of(heard.bound)) <= MAX_WRONG_BOUND_DIGITS


def _told(text: str) -> str:
    return f"heard was “{text[:300]}”" if text else "no words were heard"
