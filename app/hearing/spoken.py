"""Transcribes an untrusted English recording in a sandbox.

    heard = await hear(samples_path, sample_rate_hz=16_000, grammar=digits("my number is", 8), limits=LIMITS)

The recognisers' native code never runs in the process that asks. What the words should be is not known here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from app.hearing import moonshine
from app.hearing.words import words_of
from app.platform import sandbox
from app.platform.sandbox import Limits

LIMITS = Limits(memory_bytes=4 * 2**30, cpu_s=120, wall_s=120.0)
"""Of a minute of speech: it took 10 s of CPU. Most of the address space is the recogniser's threads'."""

_SCRIPT = Path(__file__).with_name("ear_child.py")
_WORDING = sandbox.Wording(
    verb="hear",
    script="the recogniser",
    remedy="speak nothing but the phrase",
    crash_remedy="record it again as WAV",
    work="hearing",
)
_DIGITS = "zero | oh | one | two | three | four | five | six | seven | eight | nine"


@dataclass(frozen=True)
class Spoken:
    """`text` is what was heard; `bound` the sentence of the grammar that fits, None where nothing can tell."""

    text: str
    bound: str | None


def available(language: str) -> bool:
    """Whether speech of a language can be heard here."""
    return language.partition("-")[0].lower() == "en" and moonshine.installed()


def digits(phrase: str, count: int) -> str:
    """The grammar of a phrase and so many digits."""
    words = " ".join(words_of(phrase))
    return f"#JSGF V1.0; grammar answer; public <answer> = {words} {'<digit> ' * count}; <digit> = {_DIGITS};"


async def hear(samples: Path, *, sample_rate_hz: int, grammar: str | None = None, limits: Limits = LIMITS) -> Spoken:
    """What raw mono float32 samples say. Cancelled, it kills the child.

    Raises `sandbox.Fault` where the recogniser crashes or takes too much, CarillonError where it fails.
    """
    request = {"samples": str(samples), "sample_rate_hz": sample_rate_hz, "grammar": grammar}
    answer = await sandbox.run(_SCRIPT, request, limits=limits, wording=_WORDING)
    return Spoken(answer["heard"] or "", answer["bound"])
