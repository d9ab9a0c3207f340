"""Forced alignment (word timestamps): when each word of a text is spoken in the audio that was made of it.

    async with open_aligner() as aligner:
        timing = await aligner.align(text, samples, sample_rate_hz=24_000, language="en")

English is heard by pocketsphinx, bound to the very words, in a process of its own: it holds the interpreter while it
works. Where it is not installed, for other languages, and where it cannot follow, words lie by their lengths between
the pauses of the audio, and the answer says `approximate`. What is done with the times is not known here.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import numpy as np
import soxr

from app.hearing import sphinx
from app.hearing.ear import is_english
from app.speech.audio import Samples
from app.speech.timing import TimedWord, proportional, words_of

MAX_WAITING = 16
"""Texts that wait for the recogniser, beyond which they are guessed: it hears sixty times as fast as one speaks."""

TIMEOUT_S = 5.0
"""Of one text, which has at most half a minute of audio; the first also waits for the models to be read, 0.5 s."""

MAX_S = 60.0
"""Of audio. A chunk has half of it at most."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Timing:
    """The words of a text in order; `approximate` where they were not heard, but guessed."""

    words: tuple[TimedWord, ...]
    approximate: bool


class Aligner:
    """One recogniser, shared by all sessions of a process. It is started by the first text, and again when it died."""

    def __init__(self, *, timeout_s: float = TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._child: Process | None = None
        self._turn = asyncio.Lock()
        self._waiting = 0

    async def align(self, text: str, samples: Samples, *, sample_rate_hz: int, language: str) -> Timing:
        """Times of the words of `text`, as they were spoken, in mono float32 samples of shape [n]. Never raises."""
        heard = None
        can = is_english(language) and sphinx.installed() and self._waiting < MAX_WAITING
        if can and len(samples) <= MAX_S * sample_rate_hz:
            self._waiting += 1
            try:
                async with self._turn:
                    heard = await self._hear(text, samples, sample_rate_hz)
            finally:
                self._waiting -= 1
        if heard is not None:
            return Timing(heard, approximate=False)
        return Timing(await asyncio.to_thread(proportional, text, samples, sample_rate_hz), approximate=True)

    async def _hear(self, text: str, samples: Samples, sample_rate_hz: int) -> tuple[TimedWord, ...] | None:
        words = words_of(text)
        try:
            async with asyncio.timeout(self._timeout_s):
                child = self._child = self._child or await _start()
                assert child.stdin and child.stdout
                audio = await asyncio.to_thread(_as_heard, samples, sample_rate_hz)
                request = {"words": words, "bytes": len(audio)}
                child.stdin.write(json.dumps(request).encode() + b"\n" + audio)
                await child.stdin.drain()
                answer = json.loads(await child.stdout.readline() or b"null")
        except (OSError, ValueError, TimeoutError) as error:
            log.warning("aligner failed", extra={"reason": type(error).__name__})
            await self._stop()
            return None
        except asyncio.CancelledError:
            await self._stop()  # its answer would be taken for the next one's
            raise
        if answer is None:
            return None
        return tuple(TimedWord(word, *times) for word, times in zip(words, answer, strict=True))

    async def _stop(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            with suppress(ProcessLookupError):
                child.kill()
            await child.wait()

    async def aclose(self) -> None:
        async with self._turn:
            await self._stop()


@asynccontextmanager
async def open_aligner(*, timeout_s: float = TIMEOUT_S) -> AsyncIterator[Aligner]:
    """An aligner whose recogniser ends with the context."""
    aligner = Aligner(timeout_s=timeout_s)
    try:
        yield aligner
    finally:
        await aligner.aclose()


async def _start() -> Process:
    command = (sys.executable, "-m", "app.hearing.aligner_child")
    return await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, start_new_session=True)


def _as_heard(samples: Samples, sample_rate_hz: int) -> bytes:
    at_rate = soxr.resample(samples, sample_rate_hz, sphinx.RATE_HZ)
    return (np.clip(at_rate, -1, 1) * 32767).astype("<i2").tobytes()
