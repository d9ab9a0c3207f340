"""The times of a session's words, segment by segment, while its audio goes on.

A segment is timed when it is whole: its audio has left by then, and its words follow. Segments are timed one after the
other, beside the session, so that no audio waits for the recogniser. It knows no dialect.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from app.hearing.aligner import Aligner
from app.speech.audio import samples_of
from app.speech.protocol import AudioFrame, Segment
from app.speech.text.options import TextOptions
from app.speech.text.spoken import spoken
from app.speech.timing import TimedCharacter, TimedWord, carried, characters, proportional, words_of

BYTES_PER_SAMPLE = 2


@dataclass(frozen=True, slots=True)
class Words:
    """The words of one segment, in seconds since the session's first sample, as they are delivered (at its speed)."""

    segment: Segment
    text: str
    """As it was written, with the space before it where there was some."""
    spoken_text: str
    """As it was spoken: numbers are words."""
    written: tuple[TimedWord, ...]
    spoken: tuple[TimedWord, ...]
    start_s: float
    end_s: float
    approximate: bool

    def written_characters(self) -> list[TimedCharacter]:
        """Every character as it was written; the last one ends with the segment."""
        return characters(self.text, self.written, start_s=self.start_s, end_s=self.end_s)

    def spoken_characters(self) -> list[TimedCharacter]:
        """Every character as it was spoken."""
        return characters(self.spoken_text, self.spoken, start_s=self.start_s, end_s=self.end_s)


@dataclass(frozen=True, slots=True)
class _Untimed:
    """A segment with its audio, and the space before it."""

    segment: Segment
    audio: bytes
    from_sample: int
    """Of the audio: later than the segment's where a session was resumed within it."""
    space: str


class SegmentTimer:
    """Takes a session's audio and segments, and reports the words of each."""

    def __init__(
        self,
        aligner: Aligner,
        *,
        sample_rate_hz: int,
        options: TextOptions,
        tags: tuple[str, ...],
        speed: float,
    ) -> None:
        self._aligner = aligner
        self._rate_hz = sample_rate_hz
        self._options = options
        self._tags = tags
        self._speed = speed
        self._audio = bytearray()
        """From `_from_sample` on."""
        self._from_sample = 0
        self._end_char: int | None = None
        self._due: asyncio.Queue[_Untimed | Any] = asyncio.Queue()
        """Bounded by the text that may be pending: a segment is a chunk of it."""

    def heard(self, frame: AudioFrame) -> None:
        """Keep audio until its segment has ended. A cancel, or a session that was resumed, leaves a gap."""
        if frame.sample_offset != self._from_sample + len(self._audio) // BYTES_PER_SAMPLE:
            self._audio.clear()
            self._from_sample = frame.sample_offset
        self._audio += frame.audio

    def ended(self, segment: Segment) -> None:
        """A segment is whole: time its words, when its turn comes."""
        size = (segment.end_sample - self._from_sample) * BYTES_PER_SAMPLE
        start = max(0, segment.start_sample - self._from_sample) * BYTES_PER_SAMPLE
        from_sample = max(segment.start_sample, self._from_sample)
        audio = bytes(self._audio[start : max(size, 0)])
        del self._audio[: max(size, 0)]
        self._from_sample = segment.end_sample
        if segment.text:
            self._due.put_nowait(_Untimed(segment, audio, from_sample, self._space_before(segment)))

    def _space_before(self, segment: Segment) -> str:
        before, self._end_char = self._end_char, segment.end_char
        return " " if before is not None and before != segment.start_char else ""

    def then(self, thing: Any) -> None:
        """Report `thing` itself once all segments before it are reported."""
        self._due.put_nowait(thing)

    def forget(self) -> None:
        """Report nothing of what is not reported yet."""
        while not self._due.empty():
            self._due.get_nowait()

    def close(self) -> None:
        self._due.put_nowait(None)

    async def run(self, report: Callable[[Any], Awaitable[None]]) -> None:
        """Report Words and things in order, until closed and all is reported."""
        while (due := await self._due.get()) is not None:
            await report(await self._timed(due) if isinstance(due, _Untimed) else due)

    async def _timed(self, due: _Untimed) -> Words:
        segment, space = due.segment, due.space
        said = await asyncio.to_thread(spoken, segment.text, self._options, tags=self._tags)
        start_s = due.from_sample / self._rate_hz
        samples = samples_of(due.audio)
        if words_of(said):
            timing = await self._aligner.align(
                said, samples, sample_rate_hz=self._rate_hz, language=self._options.language
            )
            words, approximate = timing.words, timing.approximate
        else:  # a laugh, a pause
            words, approximate = proportional(segment.text, samples, self._rate_hz), True
        moved = tuple(word.moved(start_s, speed=self._speed) for word in words)
        return Words(
            segment=segment,
            text=space + segment.text,
            spoken_text=space + (said or segment.text),
            written=carried(moved, segment.text),
            spoken=moved,
            start_s=start_s / self._speed,
            end_s=segment.end_sample / self._rate_hz / self._speed,
            approximate=approximate,
        )
