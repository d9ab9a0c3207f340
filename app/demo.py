"""`carillon demo`: one command from a bundled speaker's recordings to a voice, and what that changes, measured.

It is a client of a running fleet: uploads, consent, job, sessions, the new voice beside a base voice in one batch.
The figures are medians over the same prompts, voices in turn.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, TextIO

from app.client import open_speaker
from app.clone import Studio, clone, polish
from app.core.budget import Ledger
from app.core.errors import ConfigurationError
from app.core.messages import AudioFrame, Done

RECORDINGS = Path(__file__).resolve().parents[1] / "training" / "demo" / "recordings"
NAME = "heron"
CONSENT = "The recordings are of a synthetic voice (flite's awb) and bundled with Carillon; nobody's consent is needed."
PROMPTS = (
    "Good morning. The coffee is ready.",
    "The number you have called is not available.",
    "We will be at the station in ten minutes.",
    "Please answer the question before you go.",
    "The old bridge over the river is closed today.",
    "Nobody knows when the next ship will come.",
    "She put the letter under the door.",
    "There is a small garden behind the house.",
    "What would you like to eat tonight?",
    "The bell in the tower rings every hour.",
)

Json = dict[str, Any]


@dataclass(frozen=True)
class Measured:
    """One voice over the prompts: medians in milliseconds."""

    voice: str
    first_audio_ms: float
    head_silence_ms: float

    @property
    def audible_ms(self) -> float:
        return self.first_audio_ms + self.head_silence_ms


def demo(*, url: str, key: str | None, with_polish: bool, out: TextIO) -> None:
    """Clone the bundled speaker, polish a built-in voice, and print before and after. Raises CarillonError."""
    with Studio(url, key) as studio:
        base = _base_voice(studio)
        out.write(f"{NAME}: {len(list(RECORDINGS.glob('*.ogg')))} recordings of a speaker this model has never heard\n")
        began = time.monotonic()
        job = clone(RECORDINGS, name=NAME, studio=studio, consent_statement=CONSENT, watch=True, out=out)
        minutes = (time.monotonic() - began) / 60
        _tell(out, (base, NAME), job, minutes, asyncio.run(_measure(url, key, (base, NAME))))
        asyncio.run(_side_by_side(url, key, (base, NAME), out))
        if with_polish:
            before = asyncio.run(_measure(url, key, (base,)))
            began = time.monotonic()
            job = polish(base, studio=studio, watch=True, out=out)
            minutes = (time.monotonic() - began) / 60
            after = asyncio.run(_measure(url, key, (base,)))
            _tell(out, (f"{base} before", f"{base} polished"), job, minutes, [*before, *after])


def _base_voice(studio: Studio) -> str:
    """A built-in voice that nobody has polished yet, or else the first."""
    voices = studio.speakable()
    built_in = [voice["name"] for voice in voices if voice["kind"] == "built_in"]
    if not built_in:
        raise ConfigurationError("no worker serves a model with voices of its own; is a worker running?")
    clones = {voice["name"] for voice in voices if voice["kind"] == "clone"}
    return next((name for name in built_in if name not in clones), built_in[0])


async def _measure(url: str, key: str | None, voices: Sequence[str]) -> list[Measured]:
    """Every prompt by every voice, voices in turn, one at a time; each voice is heard once before, to be loaded."""
    ledgers: dict[str, list[Ledger]] = {voice: [] for voice in voices}
    for voice in voices:
        await _speak(url, key, voice, PROMPTS[0])
    for prompt in PROMPTS:
        for voice in voices:
            ledgers[voice].append(await _speak(url, key, voice, prompt))
    return [
        Measured(
            voice,
            median(ledger.first_audio_ms or 0.0 for ledger in heard),
            median(ledger.head_silence_ms or 0.0 for ledger in heard),
        )
        for voice, heard in ledgers.items()
    ]


async def _speak(url: str, key: str | None, voice: str, text: str) -> Ledger:
    async with open_speaker(url, key, voice=voice, pace="unpaced") as speaker:
        await speaker.say(text)
        await speaker.end()
        async for event in speaker:
            if isinstance(event, Done):
                return event.ledger
    raise AssertionError("a session ends with `done` or raises")


async def _side_by_side(url: str, key: str | None, voices: tuple[str, str], out: TextIO) -> None:
    """The base voice in a session that is speaking already, the new one beside it."""
    base, new = voices
    heard: dict[str, int] = dict.fromkeys(voices, 0)
    async with open_speaker(url, key, voice=base, pace="unpaced") as speaking:
        await speaking.say(" ".join(PROMPTS[:4]))
        await speaking.end()
        beside = None
        async for event in speaking:
            if isinstance(event, AudioFrame):
                heard[base] += len(event.audio) // 2
                beside = beside or asyncio.create_task(_samples(url, key, new, " ".join(PROMPTS[4:6])))
        assert beside is not None
        heard[new] = await beside
    seconds = ", ".join(f"{voice} {samples / speaking.ready.sample_rate_hz:.1f} s" for voice, samples in heard.items())
    out.write(f"in one batch, in running sessions: {seconds} of audio\n")


async def _samples(url: str, key: str | None, voice: str, text: str) -> int:
    return (await _speak(url, key, voice, text)).samples


def _tell(out: TextIO, names: tuple[str, str], job: Json, minutes: float, measured: list[Measured]) -> None:
    first, second = measured
    figures = {figure["name"]: figure["measured"] for figure in job["gate"]["figures"]}
    base = job["gate"]["base"]
    rows = [
        (
            "silence at the head, P50 of the gate's prompts, ms",
            base.get("head_silence_p50_ms"),
            figures.get("head_silence_p50_ms"),
        ),
        (f"silence at the head, P50 of {len(PROMPTS)} sessions, ms", first.head_silence_ms, second.head_silence_ms),
        ("first audio, ms", first.first_audio_ms, second.first_audio_ms),
        ("first audible sound, ms", first.audible_ms, second.audible_ms),
        ("distance to the speaker (smaller is closer)", base.get("closeness"), figures.get("closeness")),
    ]
    out.write(f"\n{'':52}{names[0]:>16}{names[1]:>16}\n")
    for name, *values in rows:
        cells = "".join(f"{'not measured' if value is None else f'{value:.4g}':>16}" for value in values)
        out.write(f"{name:52}{cells}\n")
    out.write(f"{'from upload to a voice in force, minutes':52}{'':16}{minutes:>16.1f}\n\n")
    out.flush()
