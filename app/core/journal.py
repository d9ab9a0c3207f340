"""What a session would need to go on at another worker: the text not yet spoken, and the chunk being spoken.

A journal is told everything that is sent to a worker and everything the worker says. Should the worker be gone, `move`
gives what the next one must be told; that one then goes on at the very sample where the listener is, with the codes
that were heard. Nothing is repeated and nothing is missing, whatever was under way. The journal knows no worker, no
socket and no clock. It keeps text and codes in memory, and never writes them to a log.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field

from app.core.heard import heard_text
from app.core.messages import (
    AudioFrame,
    Begun,
    Cancel,
    Cancelled,
    Eos,
    Flush,
    Flushed,
    Message,
    PartialChunk,
    Resumption,
    Segment,
    Text,
)
from app.core.orpheus import ORPHEUS_TAGS
from app.core.text import Cleaner

BYTES_PER_SAMPLE = 2
TEXT_PIECE_CHARS = 16_000
"""Of one message, well below its limit."""

STRIDES = (64, 16, 4, 1)

Command = Text | Flush | Eos | Cancel


@dataclass(slots=True)
class Cursor:
    """A place in a turn's text: `offset` in it as it was sent, `chars` in what `cleaner` has made of it so far."""

    cleaner: Cleaner
    offset: int = 0
    chars: int = 0

    def advance(self, text: str, chars: int) -> None:
        """Go forward in `text`, which begins here, to the place at which `chars` characters of the cleaned text end."""
        at = 0
        for stride in STRIDES:
            while at < len(text):
                ahead = copy(self.cleaner)
                given = self.chars + len(ahead.push(text[at : at + stride]))
                if given + len(copy(ahead).finish()) > chars:
                    break
                self.cleaner, self.chars, at = ahead, given, at + stride
        self.offset += min(at, len(text))


@dataclass(slots=True)
class SpokenChunk:
    """A chunk as far as it was received: `[start_sample, end_sample)`, made of `codes` (u16)."""

    text: str
    start_sample: int
    end_sample: int
    end: Cursor
    """Where the text that follows begins, in the text as it was sent."""
    codes: array[int] = field(default_factory=lambda: array("H"))
    whole: bool = False


class Journal:
    """One session's journal. `tags` are the checkpoint's; `keep_samples` of what was received stay resumable."""

    def __init__(
        self, *, tags: Sequence[str] = ORPHEUS_TAGS, sample_rate_hz: int = 24_000, keep_samples: int = 0
    ) -> None:
        self.generation = 0
        self.samples = 0
        """Received of the worker so far."""
        self.tokens = 0
        self.ended = False
        self._tags = tags
        self._sample_rate_hz = sample_rate_hz
        self._keep_samples = keep_samples
        self._cancels: deque[Cancel] = deque()
        """Sent, and not yet answered: what the worker says until then is of an older turn."""
        self._chunks: list[SpokenChunk] = []
        """Of the turn the worker is in."""
        self._chunk_count = 0
        self._begin_turn()

    def _begin_turn(self) -> None:
        self._text = ""
        self._pieces: list[str] = []
        self._text_start = 0
        self._flushes: deque[int] = deque()
        self.text_chars = 0
        """Characters of text that this turn has been sent."""
        self._cursor = Cursor(Cleaner(self._tags))
        """The end of the last chunk begun."""

    @property
    def pending_chars(self) -> int:
        """Characters of text that no chunk has begun with, as they were sent."""
        return self.text_chars - self._cursor.offset

    @property
    def is_new(self) -> bool:
        """Whether nothing has been said yet, by anybody."""
        return not (self.text_chars or self.samples or self.generation or self.ended or self._cancels)

    @property
    def between_chunks(self) -> bool:
        """Whether no chunk is being spoken."""
        return not self._chunks or self._chunks[-1].whole

    # What is said.

    def sent(self, command: Command) -> None:
        """Note what the client says."""
        match command:
            case Text():
                self._pieces.append(command.text)
                self.text_chars += len(command.text)
            case Flush():
                self._flushes.append(self.text_chars)
            case Eos():
                self.ended = True
            case Cancel():
                self._cancels.append(command)
                self._begin_turn()

    def heard(self, event: Message | AudioFrame) -> None:
        """Note what the worker says."""
        match event:
            case AudioFrame():
                self._hear(event)
            case Begun():
                self._begin(event)
            case Segment() if self._chunks:
                self._chunks[-1].whole = True
                self._forget()
            case Flushed() if self._flushes and not self._cancels:
                self._flushes.popleft()
            case Cancelled():
                self._cancels.popleft()
                self._chunks.clear()
                self.generation, self.samples = event.generation, event.samples
            case _:
                pass

    def _hear(self, frame: AudioFrame) -> None:
        self.samples = frame.sample_offset + len(frame.audio) // BYTES_PER_SAMPLE
        if self._chunks:
            chunk = self._chunks[-1]
            chunk.end_sample = self.samples
            chunk.codes.frombytes(frame.codes)
            self.tokens += len(frame.codes) // chunk.codes.itemsize

    def _begin(self, begun: Begun) -> None:
        self._chunk_count += 1
        end = copy(self._cursor)
        if not self._cancels:
            end.advance(self._text_from(end.offset), begun.end_char)
            self._cursor = end
        self._chunks.append(SpokenChunk(begun.text, begun.start_sample, begun.start_sample, end))

    def _text_from(self, offset: int) -> str:
        if self._pieces:
            self._text = "".join((self._text, *self._pieces))
            self._pieces.clear()
        return self._text[offset - self._text_start :]

    def _forget(self) -> None:
        """Let go of codes and text that nobody can go back to."""
        if self._cancels:
            return
        oldest = self._chunks[-1]
        for chunk in reversed(self._chunks):
            if chunk.end_sample > self.samples - self._keep_samples:
                oldest = chunk
            elif chunk.codes:
                del chunk.codes[:]
            else:
                break
        self._text, self._text_start = self._text_from(oldest.end.offset), oldest.end.offset

    # What the next worker is told.

    def move(self, *, from_sample: int | None = None) -> tuple[Resumption, list[Command]]:
        """How another worker begins, and the commands it is then sent; from now on the journal counts as that one does.

        It goes on where the last one was heard to be; with `from_sample`, at that sample of what is still kept, or the
        first that is: see `Resumption.samples`.
        """
        if from_sample is not None:
            self._go_back(from_sample)
        chunk = self._chunks[-1] if self._chunks and not self._cancels else None
        unfinished = chunk if chunk and (not chunk.whole or chunk.end_sample > self.samples) else None
        self._cursor = Cursor(Cleaner(self._tags), self._cursor.offset, self._cursor.chars)
        if chunk:
            chunk.end = self._cursor
        resumption = Resumption(
            generation=self.generation,
            samples=self.samples,
            chars=self._cursor.chars,
            tokens=self.tokens,
            chunks=self._chunk_count,
            chunk=unfinished
            and PartialChunk(
                text=unfinished.text,
                start_sample=unfinished.start_sample,
                codes=tuple(unfinished.codes),
                whole=unfinished.whole,
            ),
        )
        return resumption, [*self._cancels, *self._unspoken()]

    def _go_back(self, sample: int) -> None:
        """Take back what was received from `sample` on, or from the first sample whose codes are kept."""
        if self._cancels or sample >= self.samples:
            return
        while self._chunks and self._chunks[-1].codes:
            chunk = self._chunks[-1]
            self._cursor, self.samples = chunk.end, max(sample, chunk.start_sample)
            if sample >= chunk.start_sample or len(self._chunks) == 1 or not self._chunks[-2].codes:
                break
            self._chunks.pop()

    def _unspoken(self) -> list[Command]:
        """The text that follows the last chunk begun, its flushes between, and its end."""
        commands: list[Command] = []
        at = self._cursor.offset
        for flush in (*self._flushes, None):
            until = self.text_chars if flush is None else max(at, flush)
            text = self._text_from(at)[: until - at]
            commands += (
                Text(session="-", text=text[start : start + TEXT_PIECE_CHARS])
                for start in range(0, len(text), TEXT_PIECE_CHARS)
            )
            at = until
            if flush is not None:
                commands.append(Flush(session="-"))
        if self.ended:
            commands.append(Eos(session="-"))
        return commands

    def spoken_text(self, until: int) -> str:
        """The words of the worker's turn that are heard by the sample `until`."""
        return heard_text(self._chunks, until, sample_rate_hz=self._sample_rate_hz)

    def text_before_cancel(self) -> str:
        """The words that were heard when the next cancel to be answered was sent."""
        played = self._cancels[0].played_samples
        return self.spoken_text(self.samples if played is None else played)
