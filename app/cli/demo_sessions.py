"""The sessions of `carillon demo`: voices measured over the same prompts, and two voices at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TextIO

from app.client.session import open_session
from app.speech.latency import Ledger
from app.speech.protocol import AudioFrame, Done

PROMPTS_FILE = Path(__file__).resolve().parents[2] / "training" / "prompts.txt"
PROMPTS = 20


@dataclass(frozen=True)
class MeasuredVoice:
    """One voice over the prompts: medians in milliseconds of the sessions that have the figure, None where none has."""

    voice: str
    sessions: int
    first_audio_ms: float | None
    head_silence_ms: float | None
    audible_ms: float | None

    @classmethod
    def of(cls, voice: str, ledgers: Sequence[Ledger]) -> MeasuredVoice:
        return cls(
            voice,
            len(ledgers),
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


def prompts() -> list[str]:
    """The first sentences of those that no training has seen."""
    lines = PROMPTS_FILE.read_text("utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")][:PROMPTS]


async def measure(url: str, key: str | None, voices: Sequence[str]) -> list[MeasuredVoice]:
    """Every prompt by every voice, voices in turn, one at a time; each voice is heard once before, to be loaded."""
    ledgers: dict[str, list[Ledger]] = {voice: [] for voice in voices}
    texts = prompts()
    for voice in voices:
        await _speak(url, key, voice, texts[0])
    for text in texts:
        for voice in voices:
            ledgers[voice].append(await _speak(url, key, voice, text))
    return [MeasuredVoice.of(voice, of_voice) for voice, of_voice in ledgers.items()]


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
            first = group.create_task(_receive(url, key, base, " ".join(texts[:6]), speaking))
            await speaking.wait()
            second = group.create_task(_receive(url, key, new, " ".join(texts[6:8]), asyncio.Event()))
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    out.write(beside(first.result(), second.result()) + "\n")


async def _receive(url: str, key: str | None, voice: str, text: str, speaking: asyncio.Event) -> AudioSpan:
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
    spans = ", ".join(f"{span.voice} {span.audio_s:.1f} s" for span in (first, second))
    together_s = 0.0
    if first.first_at and first.last_at and second.first_at and second.last_at:
        together_s = min(first.last_at, second.last_at) - max(first.first_at, second.first_at)
    if together_s > 0:
        return f"two sessions at once, for {together_s:.1f} s: {spans} of audio"
    return f"two sessions, not at once, for one ended before the other was heard: {spans} of audio"
