"""`carillon bench speech`: whole sessions against a running fleet, as a voice agent would hold them.

Text comes as a language model writes it: pieces of a few letters, in bursts. Every session has a socket of its own, as
separate callers have, and its playback is simulated from the arrival of each frame. Figures are of this client: what
the network adds is in them.

    ttfa            first text sent -> first audio frame received
    audible ttfa    the same and the silence at the head of the audio: when the voice is audible
    rtf             seconds from the first text to the last audio, for a second of audio; with pace "unpaced" only
    underruns       the listener's buffer ran dry, having started `prebuffer` after the first frame
    cancel          cancel sent -> `cancelled` received; and -> the last frame that still came
"""

from __future__ import annotations

import asyncio
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from random import Random
from typing import Any, TextIO

from app.client.session import SpeechSession, open_session
from app.errors import CarillonError
from app.speech.latency import Ledger
from app.speech.protocol import AudioFrame, Cancelled, Done, Pace

TEXTS = (
    "Yes, I can do that for you.",
    "The train to the city leaves at nine in the morning. Please be there ten minutes before.",
    "There are 24 houses in this street, and 7 of them have a red door.",
    "<laugh> That is a good question! Let me think about it for a moment, and then I will tell you what I know.",
)
"""Short, long, with numbers, with a tag."""

LONG_TEXT = " ".join(TEXTS[1:3] * 4)
PREBUFFERS_MS = (0, 100, 200)
TOKENS_PER_S = 50.0
"""A language model's pace; 30 to 80 is usual."""

CANCEL_AFTER_S = 0.5


@dataclass(slots=True)
class MeasuredSession:
    """One session as its client received it; times in seconds since its first text."""

    arrivals: list[tuple[float, int]] = field(default_factory=list)
    ledger: Ledger = field(default_factory=Ledger)
    sample_rate_hz: int = 24_000

    @property
    def audio_s(self) -> float:
        return sum(samples for _, samples in self.arrivals) / self.sample_rate_hz

    @property
    def ttfa_s(self) -> float:
        return self.arrivals[0][0]

    @property
    def audible_ttfa_s(self) -> float | None:
        silence_ms = self.ledger.head_silence_ms
        return None if silence_ms is None else self.ttfa_s + silence_ms / 1000

    @property
    def rtf(self) -> float:
        return self.arrivals[-1][0] / self.audio_s

    def stalls_s(self, prebuffer_s: float) -> list[float]:
        """How long playback stood still, each time it ran dry."""
        stalls = []
        dry_at = self.arrivals[0][0] + prebuffer_s
        for arrived_at, samples in self.arrivals:
            if arrived_at > dry_at:
                stalls.append(arrived_at - dry_at)
                dry_at = arrived_at
            dry_at += samples / self.sample_rate_hz
        return stalls


def run(
    *,
    url: str,
    key: str | None,
    voices: Sequence[str],
    concurrency: Sequence[int] = (1, 2, 4),
    sessions: int = 8,
    cancels: int = 5,
    model: str | None = None,
    pace: Pace = "unpaced",
    tokens_per_s: float = TOKENS_PER_S,
    seed: int = 1,
    out: TextIO,
) -> dict[str, Any]:
    """Measure `sessions` sessions at each level of `concurrency`, then `cancels` cancels, one at a time.

    Sessions take `voices` in turn. The table goes to `out`, everything is returned. Raises CarillonError when not even
    one session can be held.
    """
    bench = Bench(url, key, tuple(voices), model, pace, tokens_per_s, seed)
    report = asyncio.run(bench.report(concurrency, sessions, cancels))
    out.write(table(report))
    return report


@dataclass(frozen=True)
class Bench:
    """Sessions against one front door."""

    url: str
    key: str | None
    voices: tuple[str, ...]
    model: str | None
    pace: Pace
    tokens_per_s: float
    seed: int

    async def report(self, concurrency: Sequence[int], sessions: int, cancels: int) -> dict[str, Any]:
        await self.warm_up()
        return {
            "model": await self.model_card(),
            "voices": self.voices,
            "pace": self.pace,
            "tokens_per_s": self.tokens_per_s,
            "levels": [await self._level(count, sessions) for count in concurrency],
            "cancel": await self._cancels(cancels),
        }

    async def warm_up(self) -> None:
        """A first session, which finds caches cold. Raises what would end all the others."""
        await self._speak(0)

    async def model_card(self) -> dict[str, Any]:
        async with self._open(0) as session:
            await session.end()
            return {"name": session.ready.model, "stand_in": session.ready.stand_in}

    def _open(self, number: int) -> AbstractAsyncContextManager[SpeechSession]:
        voice = self.voices[number % len(self.voices)]
        return open_session(self.url, self.key, voice=voice, model=self.model, pace=self.pace)

    async def _level(self, count: int, sessions: int) -> dict[str, Any]:
        measured, errors = await self.hold(count, sessions)
        return {"concurrency": count, "errors": dict(errors), **summary(measured)}

    async def hold(self, count: int, sessions: int) -> tuple[list[MeasuredSession], Counter[str]]:
        """`count` sessions at once, each followed by the next until `sessions` have been held; and what failed."""
        numbers = iter(range(sessions))
        measured: list[MeasuredSession] = []
        errors: Counter[str] = Counter()

        async def caller() -> None:
            for number in numbers:
                try:
                    measured.append(await self._speak(number))
                except CarillonError as error:
                    errors[error.code] += 1

        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                group.create_task(caller())
        return measured, errors

    async def _speak(self, number: int) -> MeasuredSession:
        clock = asyncio.get_running_loop().time
        async with self._open(number) as session:
            began_at = clock()
            measured = MeasuredSession(sample_rate_hz=session.ready.sample_rate_hz)
            writing = asyncio.create_task(self._write(session, TEXTS[number % len(TEXTS)], number))
            try:
                async for event in session:
                    if isinstance(event, AudioFrame):
                        measured.arrivals.append((clock() - began_at, len(event.audio) // 2))
                    elif isinstance(event, Done):
                        measured.ledger = event.ledger
            finally:
                writing.cancel()
                await asyncio.gather(writing, return_exceptions=True)
        return measured

    async def _write(self, session: SpeechSession, text: str, number: int) -> None:
        clock = asyncio.get_running_loop().time
        began_at = clock()
        for due_s, piece in as_a_model_writes(text, self.tokens_per_s, Random(f"{self.seed}/{number}")):
            await asyncio.sleep(began_at + due_s - clock())
            await session.say(piece)
        await session.end()

    async def _cancels(self, count: int) -> dict[str, Any]:
        answered, last_frame = [], []
        for number in range(count):
            to_answer_s, to_last_frame_s = await self._cancel(number)
            answered.append(to_answer_s)
            last_frame.append(to_last_frame_s)
        return {"sessions": count, "answered_ms": spread(answered, 1000), "last_frame_ms": spread(last_frame, 1000)}

    async def _cancel(self, number: int) -> tuple[float, float]:
        """Barge in after half a second of audio; seconds until the answer, and until the last frame (0: none came)."""
        clock = asyncio.get_running_loop().time
        samples = 0
        cancelled_at = last_frame_s = 0.0
        async with self._open(number) as session:
            await session.say(LONG_TEXT)
            async for event in session:
                if isinstance(event, AudioFrame):
                    samples += len(event.audio) // 2
                    if cancelled_at:
                        last_frame_s = clock() - cancelled_at
                    elif samples >= CANCEL_AFTER_S * session.ready.sample_rate_hz:
                        cancelled_at = clock()
                        await session.cancel(samples)
                elif isinstance(event, Cancelled):
                    return clock() - cancelled_at, last_frame_s
        raise CarillonError("the session ended before it could be cancelled; the long text was too short")


def as_a_model_writes(text: str, tokens_per_s: float, random: Random) -> Iterator[tuple[float, str]]:
    """Pieces of `text` of one to six letters and when each is due, in bursts of one to four pieces."""
    due_s = 0.0
    position = burst = 0
    while position < len(text):
        if burst == 0:
            burst = random.randint(1, 4)
            due_s += random.expovariate(tokens_per_s / burst) if position else 0.0
        size = random.randint(1, 6)
        yield due_s, text[position : position + size]
        position += size
        burst -= 1


def summary(measured: Sequence[MeasuredSession]) -> dict[str, Any]:
    """The figures of one level."""
    measured = [session for session in measured if session.arrivals]
    audio_s = sum(session.audio_s for session in measured)
    audible = [session.audible_ttfa_s for session in measured if session.audible_ttfa_s is not None]
    return {
        "sessions": len(measured),
        "audio_s": round(audio_s, 2),
        "ttfa_ms": spread([session.ttfa_s for session in measured], 1000),
        "audible_ttfa_ms": spread(audible, 1000),
        "rtf": spread([session.rtf for session in measured], 1),
        "underruns": {
            str(prebuffer_ms): _underruns(measured, prebuffer_ms / 1000, audio_s) for prebuffer_ms in PREBUFFERS_MS
        },
        "ledger_ms": {part: _median(getattr(session.ledger, part) for session in measured) for part in LEDGER_PARTS},
    }


LEDGER_PARTS = tuple(name for name in Ledger.model_fields if name.endswith("_ms"))


def _underruns(measured: Iterable[MeasuredSession], prebuffer_s: float, audio_s: float) -> dict[str, float]:
    stalls = [session.stalls_s(prebuffer_s) for session in measured]
    return {
        "sessions": sum(bool(one) for one in stalls),
        "stall_ms_per_audio_minute": round(1000 * sum(map(sum, stalls)) / (audio_s / 60), 1) if audio_s else 0.0,
    }


def spread(values: Sequence[float], scale: float) -> dict[str, float] | None:
    """The 50th and 95th percentiles; None without values."""
    if not values:
        return None
    ordered = sorted(values)
    p95 = ordered[min(len(ordered) - 1, round(0.95 * (len(ordered) - 1)))]
    return {"p50": round(statistics.median(ordered) * scale, 3), "p95": round(p95 * scale, 3)}


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(statistics.median(known), 3) if known else None


def table(report: dict[str, Any]) -> str:
    """The report for people."""
    model = report["model"]
    lines = [
        f"{model['name']}{' (stand-in)' if model['stand_in'] else ''}, text at {report['tokens_per_s']:g} tokens/s, "
        f"{report['pace']}; ms are P50/P95",
        f"{'sessions':>9}{'held':>6}{'errors':>8}{'ttfa ms':>14}{'audible ms':>14}{'rtf':>12}"
        + "".join(f"{f'dry@{ms} ms':>11}" for ms in PREBUFFERS_MS),
    ]
    lines += [
        f"{level['concurrency']:>9}{level['sessions']:>6}{sum(level['errors'].values()):>8}"
        f"{paired(level['ttfa_ms'], '.0f'):>14}{paired(level['audible_ttfa_ms'], '.0f'):>14}"
        f"{paired(level['rtf'], '.2f'):>12}"
        + "".join(f"{level['underruns'][str(ms)]['sessions']:>11}" for ms in PREBUFFERS_MS)
        for level in report["levels"]
    ]
    cancel = report["cancel"]
    if cancel["sessions"]:
        lines.append(
            f"cancel answered after {paired(cancel['answered_ms'], '.1f')} ms, "
            f"last frame after {paired(cancel['last_frame_ms'], '.1f')} ms"
        )
    return "\n".join(lines) + "\n"


def paired(values: dict[str, float] | None, form: str) -> str:
    """P50/P95."""
    return "–" if values is None else f"{values['p50']:{form}}/{values['p95']:{form}}"
