"""The session of `carillon say`: a text goes out, its audio is written as it comes, and the ledger is printed."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, closing
from pathlib import Path
from typing import TextIO

from app.cli.speech_file import SAMPLE_BYTES, STANDARD_OUTPUT, Recording, destination, format_of
from app.client.resuming import ResumingSession, open_resuming_session
from app.errors import InvalidRequest, WorkerLost
from app.speech.choices import AudioFormat
from app.speech.latency import Ledger
from app.speech.protocol import AudioFrame, Done, Pace, Waiting


def speak(
    text: str,
    *,
    voice: str,
    output: Path,
    urls: Sequence[str],
    key: str | None,
    format: AudioFormat | None = None,
    speed: float = 1.0,
    model: str | None = None,
    words_per_s: float | None = None,
    temperature: float | None = None,
    pace: Pace = "unpaced",
    progress: TextIO,
    out: TextIO,
) -> Ledger:
    """Speak `text` with `voice` at the first front door of `urls` and write `output` as the audio comes.

    When a connection breaks it goes on with the next of them, and the file goes on where it was. `output` is
    STANDARD_OUTPUT or a file, whose ending says the format, unless `format` does; `speed` changes the tempo.
    `words_per_s` sends the text word by word, as a language model writes it; None sends it whole. How far it is goes to
    `progress`, the ledger to `out`. Raises CarillonError.
    """
    if not text.strip():
        raise InvalidRequest("the text is empty; there is nothing to say", param="text")
    format = format_of(output, format)
    speaking = open_resuming_session(urls, key, voice=voice, model=model, temperature=temperature, pace=pace)
    with destination(output) as file:

        def record(sample_rate_hz: int) -> Recording:
            return Recording(file, format, sample_rate_hz, speed=speed)

        ledger, by = asyncio.run(_say(speaking, text, words_per_s, record, progress=progress))
    name = "standard output" if output == STANDARD_OUTPUT else output
    out.write(f"{name}: {ledger.audio_s / speed:.2f} s of {by}\n{ledger_table(ledger)}")
    return ledger


async def _say(
    speaking: AbstractAsyncContextManager[ResumingSession],
    text: str,
    words_per_s: float | None,
    record: Callable[[int], Recording],
    *,
    progress: TextIO,
) -> tuple[Ledger, str]:
    """Returns what was measured, and the voice with its model."""
    async with speaking as session:
        shown = Progress(progress, session.ready.sample_rate_hz)
        with closing(record(session.ready.sample_rate_hz)) as recording:
            sending = asyncio.create_task(_send(session, text, words_per_s, shown))
            try:
                ledger = await _write(session, recording, shown)
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
                shown.end()
    if not ledger.samples:
        raise InvalidRequest("the text holds nothing that can be spoken", param="text")
    model = f"{session.ready.model}, a stand-in" if session.ready.stand_in else session.ready.model
    return ledger, f"{session.ready.voice} ({model})"


async def _send(session: ResumingSession, text: str, words_per_s: float | None, shown: Progress) -> None:
    """Send `text`, at its pace, then its end."""
    shown.begin()
    loop = asyncio.get_running_loop()
    began_at = loop.time()
    for number, word in enumerate(_words(text) if words_per_s else [text]):
        if words_per_s:
            # By absolute deadlines: a sleep a word would drift.
            await asyncio.sleep(began_at + number / words_per_s - loop.time())
        await session.say(word)
        shown.sent(word)
    await session.end()
    shown.text_ended()


async def _write(session: ResumingSession, recording: Recording, shown: Progress) -> Ledger:
    async for event in session:
        if isinstance(event, AudioFrame):
            recording.write(event.sample_offset, event.audio)
            shown.received(event.sample_offset + len(event.audio) // SAMPLE_BYTES)
        elif isinstance(event, Waiting):
            shown.waits(event.reason)
        elif isinstance(event, Done):
            return event.ledger
    raise WorkerLost("the front door ended the session before it was done")


def _words(text: str) -> Iterator[str]:
    """The words of `text`, each with the space that follows it."""
    return (match.group() for match in re.finditer(r"\s*\S+\s*", text))


class Progress:
    """One line that says how far text and audio are: growing on a terminal, elsewhere once and at the end."""

    def __init__(self, out: TextIO, sample_rate_hz: int) -> None:
        self._out = out
        self._rate_hz = sample_rate_hz
        self._clock = asyncio.get_running_loop().time
        self._began_at = self._clock()
        self._words = 0
        self._samples = 0
        self._first = ""
        self._more_text = "…"
        self._reason = ""

    def begin(self) -> None:
        """The first text is about to be sent."""
        self._began_at = self._clock()

    def sent(self, text: str) -> None:
        self._words += len(text.split())
        self._show()

    def text_ended(self) -> None:
        self._more_text = ""
        self._show()

    def received(self, samples: int) -> None:
        """So many samples are there in all."""
        if not self._samples:
            early = " before the text had ended" if self._more_text else ""
            self._first = f", first audio after {(self._clock() - self._began_at) * 1000:.0f} ms{early}"
        self._samples = samples
        self._show()

    def waits(self, reason: str) -> None:
        """The session is at no worker, and goes on when this is over."""
        if reason != self._reason:
            self._out.write(("\n" if self._out.isatty() else "") + f"the session waits: {reason}\n")
            self._out.flush()
        self._reason = reason

    def end(self) -> None:
        self._out.write("\n" if self._out.isatty() else f"{self._line}\n")
        self._out.flush()

    @property
    def _line(self) -> str:
        words = "1 word" if self._words == 1 else f"{self._words} words"
        return f"{words} sent{self._more_text}  {self._samples / self._rate_hz:.1f} s heard{self._first}"

    def _show(self) -> None:
        if self._out.isatty():
            self._out.write(f"\r\x1b[K{self._line}")
            self._out.flush()


def ledger_table(ledger: Ledger) -> str:
    """The ledger as lines of text: where the milliseconds before the first sound went."""
    parts = (
        ("queue", ledger.queue_ms, "for a place"),
        ("route", ledger.route_ms, "to the worker's ready"),
        ("text", ledger.text_ms, "for enough text to begin"),
        ("prefill", ledger.prefill_ms, "to the first token"),
        ("first frames", ledger.first_frames_ms, "for enough tokens to decode"),
        ("decode", ledger.decode_ms, "of the first packet"),
        ("first audio", ledger.first_audio_ms, "from the first text, at the front door"),
        ("head silence", ledger.head_silence_ms, "before the voice begins"),
        ("total", ledger.total_ms, "from the first text"),
    )
    lines = [f"  {name:<13}{_ms(value):>9} ms  {what}\n" for name, value, what in parts]
    factor = ledger.real_time_factor
    speed = "" if factor is None else f", {factor:.2f} s of work a second of audio"
    return "".join(lines) + f"  {ledger.samples} samples, {ledger.tokens} tokens, {ledger.chunks} chunks{speed}\n"


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"
