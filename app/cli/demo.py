"""`carillon demo`: one command from a bundled speaker's recordings to a voice, and what that changes, measured.

It is a client of a running fleet: uploads, consent, job, sessions, the new voice beside a base voice in one batch.
The figures are medians over the same prompts, voices in turn.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, TextIO

from app.cli.clone import Studio, clone, polish
from app.client.session import open_session
from app.errors import ConfigurationError
from app.speech.latency import Ledger
from app.speech.protocol import AudioFrame, Done

RECORDINGS = Path(__file__).resolve().parents[2] / "training" / "demo" / "recordings"
NAME = "heron"
CONSENT = "The recordings are of a synthetic voice (flite's awb) and bundled with Carillon; nobody's consent is needed."
OVERRIDES = {"gate": {"require_closeness": False}}
"""Through the stand-in's codec Heron and one of the built-in voices are nearly one: that figure is told, not held."""

PROMPTS_FILE = Path(__file__).resolve().parents[2] / "training" / "prompts.txt"
PROMPTS = 20

Json = dict[str, Any]


@dataclass(frozen=True)
class Measured:
    """One voice over the prompts: medians in milliseconds of the sessions that told, None where none did."""

    voice: str
    first_audio_ms: float | None
    head_silence_ms: float | None
    audible_ms: float | None

    @classmethod
    def of(cls, voice: str, ledgers: Sequence[Ledger]) -> Measured:
        return cls(
            voice,
            _median(ledger.first_audio_ms for ledger in ledgers),
            _median(ledger.head_silence_ms for ledger in ledgers),
            _median(_audible_ms(ledger) for ledger in ledgers),
        )


@dataclass
class AudioSpan:
    """What came of one session, and when, on one clock."""

    voice: str
    audio_s: float = 0.0
    first_at: float | None = None
    last_at: float | None = None


def demo(*, url: str, key: str | None, with_polish: bool, out: TextIO) -> None:
    """Clone the bundled speaker, polish a built-in voice, and print before and after. Raises CarillonError."""
    with Studio(url, key) as studio:
        base = _base_voice(studio)
        out.write(f"{NAME}: {len(list(RECORDINGS.glob('*.ogg')))} recordings of a speaker this model has never heard\n")
        began = time.monotonic()
        job = clone(
            RECORDINGS,
            name=NAME,
            studio=studio,
            consent_statement=CONSENT,
            overrides=OVERRIDES,
            watch=True,
            out=out,
        )
        minutes = (time.monotonic() - began) / 60
        _tell(out, (base, NAME), job, minutes, asyncio.run(_measure(url, key, (base, NAME))))
        asyncio.run(side_by_side(url, key, (base, NAME), out))
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


def prompts() -> list[str]:
    """The first sentences of those that no training has seen."""
    lines = PROMPTS_FILE.read_text("utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")][:PROMPTS]


async def _measure(url: str, key: str | None, voices: Sequence[str]) -> list[Measured]:
    """Every prompt by every voice, voices in turn, one at a time; each voice is heard once before, to be loaded."""
    ledgers: dict[str, list[Ledger]] = {voice: [] for voice in voices}
    texts = prompts()
    for voice in voices:
        await _speak(url, key, voice, texts[0])
    for text in texts:
        for voice in voices:
            ledgers[voice].append(await _speak(url, key, voice, text))
    return [Measured.of(voice, of_voice) for voice, of_voice in ledgers.items()]


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _audible_ms(ledger: Ledger) -> float | None:
    if ledger.first_audio_ms is None or ledger.head_silence_ms is None:
        return None
    return ledger.first_audio_ms + ledger.head_silence_ms


async def _speak(url: str, key: str | None, voice: str, text: str) -> Ledger:
    async with open_session(url, key, voice=voice, pace="unpaced") as session:
        await session.say(text)
        await session.end()
        async for event in session:
            if isinstance(event, Done):
                return event.ledger
    raise AssertionError("a session ends with `done` or raises")


async def side_by_side(url: str, key: str | None, voices: tuple[str, str], out: TextIO) -> None:
    """The base voice in a session that is speaking already, the new one beside it."""
    base, new = voices
    texts = prompts()
    speaking = asyncio.Event()
    try:
        async with asyncio.TaskGroup() as group:
            first = group.create_task(_hear(url, key, base, " ".join(texts[:6]), speaking))
            await speaking.wait()
            second = group.create_task(_hear(url, key, new, " ".join(texts[6:8]), asyncio.Event()))
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    out.write(beside(first.result(), second.result()) + "\n")


async def _hear(url: str, key: str | None, voice: str, text: str, speaking: asyncio.Event) -> AudioSpan:
    """One session; `speaking` is set when its first audio comes, or none will."""
    span = AudioSpan(voice)
    try:
        async with open_session(url, key, voice=voice, pace="unpaced") as session:
            await session.say(text)
            await session.end()
            async for event in session:
                if isinstance(event, AudioFrame):
                    span.audio_s += len(event.audio) / 2 / session.ready.sample_rate_hz
                    span.last_at = time.monotonic()
                    span.first_at = span.first_at or span.last_at
                    speaking.set()
    finally:
        speaking.set()
    return span


def beside(first: AudioSpan, second: AudioSpan) -> str:
    """A line on two sessions: whether audio of both came in the same stretch of time."""
    told = ", ".join(f"{span.voice} {span.audio_s:.1f} s" for span in (first, second))
    together_s = 0.0
    if first.first_at and first.last_at and second.first_at and second.last_at:
        together_s = min(first.last_at, second.last_at) - max(first.first_at, second.first_at)
    if together_s > 0:
        return f"two sessions at once, for {together_s:.1f} s: {told} of audio"
    return f"two sessions, not at once, for one ended before the other was heard: {told} of audio"


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
        (f"silence at the head, P50 of {PROMPTS} sessions, ms", first.head_silence_ms, second.head_silence_ms),
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
