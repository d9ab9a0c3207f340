"""`carillon say`: speak a text through a running fleet into a WAV file, written as it is heard."""

from __future__ import annotations

import asyncio
import re
import struct
from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager, closing
from pathlib import Path
from typing import TextIO

from app.core.budget import Ledger
from app.core.errors import ConfigurationError, WorkerLost
from app.core.messages import AudioFrame, Done, Pace
from app.resuming import ResumingSpeaker, open_resuming_speaker

SAMPLE_BYTES = 2
UNKNOWN_SAMPLES = 2**30
"""What the header claims until the end is known, so that a player can follow a file that grows."""


def say(
    text: str,
    *,
    voice: str,
    output: Path,
    urls: Sequence[str],
    key: str | None,
    model: str | None = None,
    words_per_s: float | None = None,
    temperature: float | None = None,
    pace: Pace = "unpaced",
    progress: TextIO,
    out: TextIO,
) -> Ledger:
    """Speak `text` with `voice` at the first front door of `urls` and write `output` as the audio comes.

    A connection that breaks is made anew, to the next of them, and the file goes on where it was. `words_per_s` sends
    the text word by word, as a language model writes it; None sends it whole. The progress line goes to `progress`, the
    ledger to `out`. Raises CarillonError.
    """
    speaking = open_resuming_speaker(urls, key, voice=voice, model=model, temperature=temperature, pace=pace)
    return asyncio.run(_say(speaking, text, words_per_s, output, progress=progress, out=out))


async def _say(
    speaking: AbstractAsyncContextManager[ResumingSpeaker],
    text: str,
    words_per_s: float | None,
    output: Path,
    *,
    progress: TextIO,
    out: TextIO,
) -> Ledger:
    async with speaking as speaker:
        told = Progress(progress, speaker.ready.sample_rate_hz)
        with closing(WavFile(output, speaker.ready.sample_rate_hz)) as file:
            sending = asyncio.create_task(_send(speaker, text, words_per_s, told))
            try:
                ledger = await _write(speaker, file, told)
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
                told.end()
    name = f"{speaker.ready.model}, a stand-in" if speaker.ready.stand_in else speaker.ready.model
    out.write(f"{output}: {ledger.audio_s:.2f} s of {speaker.ready.voice} ({name})\n{ledger_table(ledger)}")
    return ledger


class WavFile:
    """A WAV file that grows, and of which the end may be written anew. Raises ConfigurationError."""

    def __init__(self, path: Path, sample_rate_hz: int) -> None:
        self._rate_hz = sample_rate_hz
        try:
            self._file = path.open("wb")
        except OSError as error:
            raise ConfigurationError(f"{path} cannot be written: {error.strerror}") from None
        self._begin = self._file.write(wav_header(UNKNOWN_SAMPLES, sample_rate_hz))

    def write(self, sample: int, pcm16: bytes) -> None:
        """Let `pcm16` be the file's end, from `sample` on."""
        self._file.seek(self._begin + sample * SAMPLE_BYTES)
        self._file.write(pcm16)
        self._file.truncate()

    def close(self) -> None:
        samples = (self._file.tell() - self._begin) // SAMPLE_BYTES
        self._file.seek(0)
        self._file.write(wav_header(samples, self._rate_hz))
        self._file.close()


def wav_header(samples: int, sample_rate_hz: int) -> bytes:
    """RIFF/WAVE for so many samples of PCM s16le mono."""
    size = samples * SAMPLE_BYTES
    form = (b"fmt ", 16, 1, 1, sample_rate_hz, sample_rate_hz * SAMPLE_BYTES, SAMPLE_BYTES, 8 * SAMPLE_BYTES)
    return struct.pack("<4sI4s 4sIHHIIHH 4sI", b"RIFF", 36 + size, b"WAVE", *form, b"data", size)


async def _send(speaker: ResumingSpeaker, text: str, words_per_s: float | None, told: Progress) -> None:
    """Send `text`, at its pace, then its end."""
    told.begin()
    loop = asyncio.get_running_loop()
    began_at = loop.time()
    for number, word in enumerate(_words(text) if words_per_s else [text]):
        if words_per_s:
            # By absolute deadlines: a sleep a word would drift.
            await asyncio.sleep(began_at + number / words_per_s - loop.time())
        await speaker.say(word)
        told.sent(word)
    await speaker.end()
    told.text_ended()


async def _write(speaker: ResumingSpeaker, file: WavFile, told: Progress) -> Ledger:
    async for event in speaker:
        if isinstance(event, AudioFrame):
            file.write(event.sample_offset, event.audio)
            told.heard(event.sample_offset + len(event.audio) // SAMPLE_BYTES)
        elif isinstance(event, Done):
            return event.ledger
    raise WorkerLost("the front door ended the session before it was done")


def _words(text: str) -> Iterator[str]:
    """The words of `text`, each with the space that follows it."""
    return (match.group() for match in re.finditer(r"\s*\S+\s*", text))


class Progress:
    """One line that says how far text and audio are."""

    def __init__(self, out: TextIO, sample_rate_hz: int) -> None:
        self._out = out
        self._rate_hz = sample_rate_hz
        self._clock = asyncio.get_running_loop().time
        self._began_at = self._clock()
        self._words = 0
        self._samples = 0
        self._first = ""
        self._more_text = "…"

    def begin(self) -> None:
        """The first text is about to be sent."""
        self._began_at = self._clock()

    def sent(self, text: str) -> None:
        self._words += len(text.split())
        self._show()

    def text_ended(self) -> None:
        self._more_text = ""
        self._show()

    def heard(self, samples: int) -> None:
        """So many samples are there in all."""
        if not self._samples:
            early = " before the text had ended" if self._more_text else ""
            self._first = f", first audio after {(self._clock() - self._began_at) * 1000:.0f} ms{early}"
        self._samples = samples
        self._show()

    def end(self) -> None:
        self._out.write("\n")
        self._out.flush()

    def _show(self) -> None:
        heard_s = self._samples / self._rate_hz
        self._out.write(f"\r\x1b[K{self._words} words sent{self._more_text}  {heard_s:.1f} s heard{self._first}")
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
