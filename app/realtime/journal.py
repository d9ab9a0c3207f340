"""What a session would need to go on at another worker: the text not yet spoken, and the chunk being spoken.

A journal notes everything that is sent to a worker and received of it. Should the worker be gone, `move` returns what
to send to the next one, which then goes on at the very sample where the listener is, with the codes that were received.
Nothing is repeated and nothing is missing, whatever was under way. Should this process be gone, what `record` gave is
enough to do the same elsewhere. The journal is pure: no worker, no socket, no clock. It keeps text and codes in memory,
and never writes them to a log.

What a client sends is read by a `Markup` here, whose state lives as long as the session, and plain text is all that a
worker gets. Offsets are of plain text, but where they are said to be of what was written.
"""

from __future__ import annotations

import json
import struct
from array import array
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field
from itertools import pairwise
from sys import maxsize

from app.speech.protocol import (
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
from app.speech.spoken_text import played_text
from app.speech.text import Cleaner, marks
from app.speech.text.markup import Markup
from app.speech.text.options import MarkupKind, TextOptions
from app.speech.text.spoken import is_silent
from app.speech.token_layout import ORPHEUS_TAGS, TOKENS_PER_FRAME

BYTES_PER_SAMPLE = 2
TEXT_PIECE_CHARS = 16_000
"""Of one message, well below its limit."""

STRIDES = (64, 16, 4, 1)

MAX_FLUSHED = 1_000

RECORDED_CHARS = 10_000
"""Of what was spoken longer ago than can be gone back to, a record keeps so many characters, for `spoken_text`: that is
twelve minutes of one turn."""

RECORD_VERSION = 3
RECORD_HEAD = struct.Struct("<I")
"""A record: the length of its JSON (u32), the JSON, and the codes of all its chunks (u16), little-endian."""

Command = Text | Flush | Eos | Cancel


@dataclass(slots=True)
class Cursor:
    """A place in a turn's text: `offset` in it as the worker got it, `chars` in what `cleaner` made of that so far."""

    cleaner: Cleaner
    offset: int = 0
    chars: int = 0
    rate: float = 1.0
    """At which the text that begins here is spoken."""

    def advance(self, pieces: Iterable[str], chars: int) -> None:
        """Go forward in the text that begins here to the place at which `chars` characters of the cleaned text end.

        It was flushed between its `pieces`, which is where the worker's cleaner decides what it held back. That the
        text went idle only the worker knows: where a combining mark comes after that, this place is one too far.
        """
        for number, piece in enumerate(pieces):
            if number:
                self.cleaner = copy(self.cleaner)
                self.chars += len(self.cleaner.finish())
            if self._advance_within(piece, chars) < len(piece):
                break

    def _advance_within(self, piece: str, chars: int) -> int:
        """How far in `piece` the place is, which is the last one at which there are no more than `chars`."""
        at = 0
        for stride in STRIDES:
            ahead, given = copy(self.cleaner), self.chars
            for start in range(at, len(piece), stride):
                given += len(ahead.push(piece[start : start + stride]))
                if given > chars:
                    break
                # Markup counts for as long as it may be text: after more than `chars` there may be fewer.
                if given + len(copy(ahead).finish()) <= chars:
                    self.cleaner, self.chars, at = copy(ahead), given, min(start + stride, len(piece))
        self.offset += at
        if marks.RATE.search(piece, 0, at):
            self.rate = marks.rate_of(piece[:at])
        return at


@dataclass(slots=True)
class SpokenChunk:
    """A chunk as far as it was received: `[start_sample, end_sample)`, made of `codes` (u16)."""

    text: str
    start_sample: int
    end_sample: int
    end: Cursor
    """Where the text that follows begins."""
    written: tuple[int, int] | None = None
    """Where it stands in the turn's text as it was written, `[start, end)`."""
    codes: array[int] = field(default_factory=lambda: array("H"))
    whole: bool = False
    kept: bool = True
    """Its codes are still here; else it was played, and cannot be gone back to."""


class Journal:
    """One session's journal. `tags` are the checkpoint's; `keep_samples` of what was received stay resumable."""

    def __init__(
        self,
        *,
        tags: Sequence[str] = ORPHEUS_TAGS,
        sample_rate_hz: int = 24_000,
        keep_samples: int = 0,
        options: TextOptions | None = None,
    ) -> None:
        self.generation = 0
        self.samples = 0
        """Received of the worker so far."""
        self.tokens = 0
        self.ended = False
        self.all_chars = 0
        """Of the text of all turns, as it was written."""
        self.all_samples = 0
        """Of the audio of all turns; what came again, for a listener who lacked it, counts once."""
        self._counted_until = 0
        """The sample up to which this turn's audio is in `all_samples`."""
        self.version = 0
        """Another one after each change."""
        self._tags = tags
        self._options = options or TextOptions(markup=MarkupKind.PLAIN)
        self._ignored: dict[str, None] = {}
        self.sample_rate_hz = sample_rate_hz
        self._keep_samples = keep_samples
        self._cancels: deque[Cancel] = deque()
        """Sent, and not yet answered: what the worker sends until then is of an older turn."""
        self._chunks: list[SpokenChunk] = []
        """Of the turn the worker is in."""
        self._chunk_count = 0
        self._begin_turn()

    def _begin_turn(self) -> None:
        self._text = ""
        self._pieces: list[str] = []
        self._text_start = 0
        self._flushes: deque[int] = deque()
        self._flushed: deque[tuple[int, int]] = deque(maxlen=MAX_FLUSHED)
        """Flushes that were answered, and at which sample, as far back as codes are kept."""
        self._text_chars = 0
        """Characters of text that this turn's worker has been sent."""
        self._markup = Markup(self._options, tags=self._tags)
        self._cursor = Cursor(Cleaner(self._tags))
        """The end of the last chunk begun."""

    @property
    def text_chars(self) -> int:
        """Characters of text that this turn has received, as they were written."""
        return self._markup.received_chars

    @property
    def pending_chars(self) -> int:
        """Characters of text that no chunk has begun with: as they are read, or were written where those are fewer.

        A thought is not read at all, and the name of an emoji is far longer than what its sender counts.
        """
        plain = self._text_chars - self._cursor.offset
        return min(plain, self._markup.received_chars - self._markup.source(self._cursor.offset))

    @property
    def ignored(self) -> tuple[str, ...]:
        """What the markup of its text names and is not done."""
        return tuple(dict.fromkeys((*self._ignored, *self._markup.ignored)))

    @property
    def written_span(self) -> tuple[int, int] | None:
        """Where the last chunk stands in its turn's text as it was written."""
        return self._chunks[-1].written if self._chunks else None

    @property
    def awaits_speech(self) -> bool:
        """Whether there is text with something to speak that no chunk has begun with."""
        unread = self._text_chars > self._cursor.offset
        return unread and not is_silent(self._text_from(self._cursor.offset))

    @property
    def awaits_flush(self) -> bool:
        """Whether a flush has not been answered."""
        return bool(self._flushes)

    @property
    def is_new(self) -> bool:
        """Whether nothing has been sent yet, by either side."""
        return not (self.text_chars or self.samples or self.generation or self.ended or self._cancels)

    @property
    def cancels(self) -> tuple[Cancel, ...]:
        """Those that have not been answered."""
        return tuple(self._cancels)

    @property
    def between_chunks(self) -> bool:
        """Whether no chunk is being spoken."""
        return not self._chunks or self._chunks[-1].whole

    # What is sent and received.

    def sent(self, command: Command) -> list[Command]:
        """Note what the client sends; returns what the worker is to be sent.

        A text without a word to speak is sent all the same, so that the worker sees the session is not idle.
        """
        self.version += 1
        commands: list[Command] = [command]
        match command:
            case Text():
                self.all_chars += len(command.text)
                commands = self._plain(command, self._markup.push(command.text))
            case Flush() | Eos():
                if rest := self._markup.finish():
                    commands = [*self._plain(Text(session="-", text=""), rest), command]
                if isinstance(command, Flush):
                    self._flushes.append(self._text_chars)
                self.ended |= isinstance(command, Eos)
            case Cancel():
                self._cancels.append(command.model_copy(update={"session": "-"}))
                self._ignored |= dict.fromkeys(self._markup.ignored)
                self._begin_turn()
        return commands

    def _plain(self, command: Text, plain: str) -> list[Command]:
        self._pieces.append(plain)
        self._text_chars += len(plain)
        return [command.model_copy(update={"text": piece}) for piece in _in_pieces(plain) or [plain]]

    def received(self, event: Message | AudioFrame) -> None:
        """Note what the worker sends."""
        if isinstance(event, AudioFrame):
            self.heard(event)
            return
        self.version += 1
        match event:
            case Begun():
                self._begin(event)
            case Segment() if self._chunks:
                self._chunks[-1].whole = True
                self._forget()
            case Flushed() if self._flushes and not self._cancels:
                self._pass_flush(event.samples)
            case Cancelled():
                self._cancels.popleft()
                self._chunks.clear()
                self.generation, self.samples = event.generation, event.samples
                self._counted_until = event.samples
            case _:
                pass

    def heard(self, frame: AudioFrame) -> None:
        """Note audio that the worker sends."""
        self.version += 1
        self.samples = frame.sample_offset + len(frame.audio) // BYTES_PER_SAMPLE
        self.all_samples += max(0, self.samples - self._counted_until)
        self._counted_until = max(self._counted_until, self.samples)
        if self._chunks:
            chunk = self._chunks[-1]
            chunk.end_sample = max(chunk.end_sample, self.samples)  # less where known codes are decoded again
            chunk.codes.frombytes(frame.codes)
            self.tokens += len(frame.codes) // chunk.codes.itemsize

    def _begin(self, begun: Begun) -> None:
        self._chunk_count += 1
        end, written = copy(self._cursor), None
        if not self._cancels:
            ahead = (flush for flush in self._flushes if flush >= end.offset)
            end.advance(self._parted(ahead), begun.end_char)
            written = self._written(self._cursor.offset, end.offset)
            self._cursor = end
        self._chunks.append(SpokenChunk(begun.text, begun.start_sample, begun.start_sample, end, written))

    def _written(self, start: int, end: int) -> tuple[int, int]:
        """Where plain text `[start, end)`, without the space around it, comes from."""
        text = self._text_from(start)[: end - start]
        last = start + len(text.rstrip())
        start += len(text) - len(text.lstrip())
        return self._markup.source(start), self._markup.source(max(start, last - 1)) + (last > start)

    def _pass_flush(self, sample: int) -> None:
        """The oldest flush is answered: what there is before it is spoken, or has no word to speak."""
        flush = self._flushes.popleft()
        self._flushed.append((flush, sample))
        if flush >= self._cursor.offset:
            self._cursor = copy(self._cursor)
            self._cursor.advance((next(self._parted([flush])), ""), maxsize)

    def _parted(self, flushes: Iterable[int]) -> Iterator[str]:
        """The text that follows the last chunk begun, parted where it was flushed."""
        text = self._text_from(self._cursor.offset)
        ends = (max(0, flush - self._cursor.offset) for flush in flushes)
        return (text[start:end] for start, end in pairwise((0, *ends, len(text))))

    def _text_from(self, offset: int) -> str:
        if self._pieces:
            self._text = "".join((self._text, *self._pieces))
            self._pieces.clear()
        return self._text[offset - self._text_start :]

    def _forget(self) -> None:
        """Let go of codes and text that cannot be gone back to."""
        if self._cancels:
            return
        oldest = self._chunks[-1]
        for chunk in reversed(self._chunks):
            if chunk.end_sample > self.samples - self._keep_samples:
                oldest = chunk
            elif chunk.kept:
                chunk.kept = False
                del chunk.codes[:]
            else:
                break
        while self._flushed and self._flushed[0][1] <= self.samples - self._keep_samples:
            self._flushed.popleft()
        self._text, self._text_start = self._text_from(oldest.end.offset), oldest.end.offset
        self._markup.forget(self._text_start)

    # What the next worker gets.

    def move(self, *, from_sample: int | None = None) -> tuple[Resumption, list[Command]]:
        """How another worker begins, and the commands it is then sent; from now on the journal counts as that one does.

        It goes on where the last one is known to have been; with `from_sample`, at that sample of what is still kept,
        or the first that is: see `Resumption.samples`.
        """
        if from_sample is not None:
            self._go_back(from_sample)
        chunk = self._chunks[-1] if self._chunks and not self._cancels else None
        unfinished = chunk if chunk and (not chunk.whole or chunk.end_sample > self.samples) else None
        self._cursor = self._cursor_at(self._cursor.offset, self._cursor.chars, self._cursor.rate)
        if chunk:
            chunk.end = self._cursor
        if unfinished and not unfinished.whole:
            del unfinished.codes[len(unfinished.codes) // TOKENS_PER_FRAME * TOKENS_PER_FRAME :]
        resumption = Resumption(
            generation=self.generation,
            samples=self.samples,
            chars=self._cursor.chars,
            tokens=self.tokens,
            chunks=self._chunk_count,
            rate=self._cursor.rate,
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
        while self._chunks and self._chunks[-1].kept:
            chunk = self._chunks[-1]
            self._cursor, self.samples = chunk.end, max(sample, chunk.start_sample)
            if sample >= chunk.start_sample or len(self._chunks) == 1 or not self._chunks[-2].kept:
                break
            self._chunks.pop()
        while self._flushed and self._flushed[-1][1] > self.samples:
            self._flushes.appendleft(self._flushed.pop()[0])

    def _unspoken(self) -> list[Command]:
        """The text that follows the last chunk begun, its flushes between, and its end."""
        commands: list[Command] = []
        for number, text in enumerate(self._parted(self._flushes)):
            if number:
                commands.append(Flush(session="-"))
            commands += (Text(session="-", text=piece) for piece in _in_pieces(text))
        if self.ended:
            commands.append(Eos(session="-"))
        return commands

    # What another process gets.

    def record(self) -> bytes:
        """All that `move` needs, to be kept outside of this process: see `Journal.restored`."""
        chunks = self._recorded_chunks()
        fields = {
            "version": RECORD_VERSION,
            "tags": list(self._tags),
            "sample_rate_hz": self.sample_rate_hz,
            "generation": self.generation,
            "samples": self.samples,
            "tokens": self.tokens,
            "ended": self.ended,
            "all_chars": self.all_chars,
            "all_samples": self.all_samples,
            "counted_until": self._counted_until,
            "cancels": [cancel.played_samples for cancel in self._cancels],
            "text": self._text_from(self._text_start),
            "text_start": self._text_start,
            "text_chars": self._text_chars,
            "markup": self._markup.record(),
            "ignored": list(self._ignored),
            "flushes": list(self._flushes),
            "flushed": list(self._flushed),
            "cursor": (self._cursor.offset, self._cursor.chars, self._cursor.rate),
            "chunk_count": self._chunk_count,
            "chunks": [
                (
                    *(it.text, it.start_sample, it.end_sample, it.end.offset, it.end.chars, it.end.rate),
                    *(it.written if it.kept else 0, it.whole, it.kept, len(it.codes)),
                )
                for it in chunks
            ],
        }
        written = json.dumps(fields, separators=(",", ":")).encode()
        return b"".join((RECORD_HEAD.pack(len(written)), written, *(chunk.codes.tobytes() for chunk in chunks)))

    def _recorded_chunks(self) -> list[SpokenChunk]:
        first, chars = len(self._chunks), 0
        while first and (chars <= RECORDED_CHARS or self._chunks[first - 1].kept):
            first -= 1
            chars += len(self._chunks[first].text) if not self._chunks[first].kept else 0
        return self._chunks[first:]

    @classmethod
    def restored(cls, record: bytes, *, keep_s: float = 0) -> Journal:
        """The journal of a `record`, which goes on with `move`. Raises ValueError for one of another version."""
        try:
            return cls._restored(record, keep_s)
        except (LookupError, TypeError, struct.error) as error:
            raise ValueError(f"no journal of version {RECORD_VERSION}: {type(error).__name__} {error}") from None

    @classmethod
    def _restored(cls, record: bytes, keep_s: float) -> Journal:
        codes_at = RECORD_HEAD.size + RECORD_HEAD.unpack_from(record)[0]
        fields = json.loads(record[RECORD_HEAD.size : codes_at])
        if fields["version"] != RECORD_VERSION:
            raise ValueError(f"a journal of version {fields['version']}; this is version {RECORD_VERSION}")
        rate_hz = fields["sample_rate_hz"]
        journal = cls(tags=fields["tags"], sample_rate_hz=rate_hz, keep_samples=round(keep_s * rate_hz))
        journal.generation, journal.samples = fields["generation"], fields["samples"]
        journal.tokens, journal.ended = fields["tokens"], fields["ended"]
        # A record of a version that did not count has begun an account of its own.
        journal.all_chars, journal.all_samples = fields.get("all_chars", 0), fields.get("all_samples", 0)
        journal._counted_until = fields.get("counted_until", journal.samples)
        journal._cancels += (Cancel(session="-", played_samples=played) for played in fields["cancels"])
        journal._text, journal._text_start = fields["text"], fields["text_start"]
        journal._text_chars = fields["text_chars"]
        journal._markup = Markup.restored(fields["markup"], tags=fields["tags"])
        journal._options = journal._markup.options
        journal._ignored |= dict.fromkeys(fields["ignored"])
        journal._flushes += fields["flushes"]
        journal._flushed += map(tuple, fields["flushed"])
        journal._cursor = journal._cursor_at(*fields["cursor"])
        journal._chunk_count = fields["chunk_count"]
        for text, start, end, offset, chars, rate, written, whole, kept, count in fields["chunks"]:
            chunk = SpokenChunk(text, start, end, journal._cursor_at(offset, chars, rate), whole=whole, kept=kept)
            chunk.written = tuple(written) if written else None
            chunk.codes.frombytes(record[codes_at : codes_at + count * chunk.codes.itemsize])
            codes_at += count * chunk.codes.itemsize
            journal._chunks.append(chunk)
        return journal

    def _cursor_at(self, offset: int, chars: int, rate: float) -> Cursor:
        """A cursor as `move` leaves it: the next worker cleans what follows it as a text of its own."""
        return Cursor(Cleaner(self._tags), offset, chars, rate)

    # What was played.

    def spoken_text(self, until: int) -> str:
        """The words of the worker's turn that are played by the sample `until`."""
        return marks.as_written(played_text(self._chunks, until, sample_rate_hz=self.sample_rate_hz))

    def text_before_cancel(self) -> str:
        """The words that were played when the next cancel to be answered was sent."""
        played = self._cancels[0].played_samples
        return self.spoken_text(self.samples if played is None else played)


def _in_pieces(text: str) -> list[str]:
    """A text in pieces that each fit a message."""
    return [text[start : start + TEXT_PIECE_CHARS] for start in range(0, len(text), TEXT_PIECE_CHARS)]
