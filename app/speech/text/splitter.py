"""Sentence splitting (chunking): cleaned text cut into the chunks that are spoken one by one.

`TextSplitter` is incremental and pure. It knows no clock (the caller says when text went idle or audio is needed) and
no engine. That long batches are cut once audio is ahead follows LiveKit.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from app.errors import ConfigurationError, TextAfterEnd
from app.speech.text.boundaries import CJK, WHOLE_END, Chunk, Cut, boundaries, parts_number
from app.speech.text.characters import MAX_MARKS, Cleaner, has_speech, joins_previous
from app.speech.text.marks import END, PAUSE, RATE, START, rate_mark, rate_of, reading_spans
from app.speech.token_layout import ORPHEUS_TAGS

MAX_SPOKEN_CHARS = 600
"""Of what one chunk becomes as words: three quarters of a minute of English, which fit a context of 4096 tokens."""

CLAUSE_CHARS, CLAUSE_WORDS, FIRST_WORDS = 20, 4, 12
"""What does for a start: a clause of so many characters and words, or so many words of any kind."""

IDLE_WORDS = 3
"""That are spoken without the rest of their sentence, once no more text comes."""

GROWTH_CHARS = 5
"""A digit is read as five letters or six; signs as "/" likewise."""

_SIGN = re.compile(f"{PAUSE.pattern}|{RATE.pattern}")
_MANY_WORDS = re.compile(r"[\d/@#%&+=€£$¥_^<>*]")


class TextSplitter:
    """Cuts text that arrives in pieces into chunks to speak.

    Push text as it comes and call `next_chunk` after each push, until it returns None:

        splitter.push("Hello there. How")
        splitter.next_chunk(eager=True)     # Chunk(text="Hello there.", start=0, end=12, cut=Cut.SENTENCE)

    `eager`: audio is needed now. The first chunk (also the first after a flush) is then cut at the earliest sentence
    end, clause of 20 characters and 4 words, or 12 words; a later one takes all the whole sentences that are there, up
    to `batch_chars`, or else the longest clause or row of words that would do for a start. Not eager, a chunk is cut
    only when a full batch is there. Text before a flush or the close is always ready, in batches of whole sentences. No
    chunk is longer than `max_chunk_chars`, and one of many digits is shorter, for it is spoken in many words; a tag is
    never cut, and goes with the words after it; a number is not cut where there is any other place. A pause is a chunk
    of its own. No chunk has two rates; the source of each begins with a mark of its rate, unless that is 1.
    """

    def __init__(
        self,
        *,
        tags: Sequence[str] = ORPHEUS_TAGS,
        max_chunk_chars: int = 300,
        batch_chars: int = 280,
        begun: bool = False,
        rate: float = 1.0,
        respell: Callable[[str], str] | None = None,
    ) -> None:
        """`begun`: the turn is being spoken already, at this `rate`, so the first chunk need not be early. `respell`:
        how its words will be said, which may be longer."""
        self._respell = respell
        self._rate = rate
        self._cleaner = Cleaner(tags)
        longest_tag = max(map(len, tags), default=0)
        if max_chunk_chars < longest_tag + MAX_MARKS + 2:
            needed = longest_tag + MAX_MARKS + 2
            raise ConfigurationError(f"max_chunk_chars is {max_chunk_chars}; it must be at least {needed}.")
        any_tag = "|".join(map(re.escape, tags)) or "(?!)"
        self._tag = re.compile(any_tag)
        self._trailing_tags = re.compile(rf"(?:\s*(?:{any_tag}))+\Z")
        self._max_chars = max_chunk_chars
        self._batch_chars = min(batch_chars, max_chunk_chars)
        self._window_chars = max_chunk_chars + max(longest_tag, 2)
        self._room = max_chunk_chars
        self._text = ""
        self._base = 0  # where in the cleaned stream `_text` begins
        self._start = 0  # where in `_text` the next chunk begins
        self._marks: deque[tuple[int, Cut]] = deque()  # stream offsets no chunk crosses
        self._first = not begun
        self._idle = False
        self._closed = False

    @property
    def pending_chars(self) -> int:
        """Cleaned characters that are in no chunk yet, those held back for a decision left out."""
        return len(self._text) - self._start

    def push(self, piece: str) -> None:
        """Take more text. Raises TextAfterEnd once closed."""
        if self._closed:
            raise TextAfterEnd("Text arrived after the end of the stream; start a new session for it.")
        if piece:
            self._idle = False
            self._text += self._cleaner.push(piece)

    def idle(self) -> None:
        """Say that no text came for a while (250 ms, by the caller's clock): whole words need not wait for more."""
        self._text += self._cleaner.settle()
        self._idle = True

    def flush(self) -> int:
        """Make all text so far ready; returns its end in the cleaned stream, which is some chunk's `end`."""
        return self._mark(Cut.FLUSH)

    def close(self) -> int:
        """Like `flush`, and no text may follow."""
        self._closed = True
        return self._mark(Cut.END)

    def next_chunk(self, *, eager: bool) -> Chunk | None:
        """The next chunk if one is ready under the rules above; None if not, or if all text has been given out."""
        self._skip_to_text()
        if self._marks and self._marks[0][0] == self._base + self._start:
            return self._take("", 0, self._marks[0][1])  # nothing but a change of rate
        window = self._window()
        if mark := _SIGN.search(window):
            if not mark.start():
                return self._take(window, mark.end(), Cut.PAUSE)
            window = window[: mark.start()]
            self._room = self._room_in(window)
            ahead = min(mark.start(), self._marks[0][0] - self._base - self._start) if self._marks else mark.start()
            end, cut = self._cut_before(window[:ahead], ahead, Cut.PARAGRAPH)
            return self._take(window, end, cut)
        self._room = self._room_in(window)
        if self._marks:
            remaining = self._marks[0][0] - self._base - self._start
            end, cut = self._cut_before(window[:remaining], remaining, self._marks[0][1])
        else:
            end, cut = self._cut_in_the_open(window, eager)
        return self._take(window, end, cut) if end else None

    def _skip_to_text(self) -> None:
        """Past what no chunk begins with, but not past the end of what was flushed."""
        while char := self._text[self._start : self._start + 1]:
            if self._marks and self._marks[0][0] == self._base + self._start:
                break
            if RATE.match(char):
                self._rate = rate_of(char)
            elif not char.isspace():
                break
            self._start += 1

    def _window(self) -> str:
        """The text that the next chunk is a part of: whole readings, which are never cut."""
        end = self._start + self._window_chars
        window = self._text[self._start : end]
        if not window.isascii() and window.rfind(START) > window.rfind(END):
            close = self._text.find(END, end)
            window = self._text[self._start : close + 1 if close >= 0 else None]
        return window

    def _mark(self, cut: Cut) -> int:
        self._text += self._cleaner.finish()
        end = self._base + len(self._text)
        if end == self._base + self._start:
            self._first = True
        elif not self._marks or self._marks[-1][0] < end:
            self._marks.append((end, cut))
        return end

    def _take(self, window: str, end: int, cut: Cut) -> Chunk:
        start = self._base + self._start
        ends = "\n" if end and cut in (Cut.PARAGRAPH, Cut.END) else ""
        rate = rate_mark(self._rate) if self._rate != 1 and end and cut is not Cut.PAUSE else ""
        chunk = Chunk(window[:end].replace("\n", " "), start, start + end, cut, source=rate + window[:end] + ends)
        self._start += end
        self._first = bool(self._marks) and chunk.end == self._marks[0][0]
        if self._first:
            self._marks.popleft()
        if self._start > 4 * self._window_chars:  # not at every chunk: each copies the rest of the text
            self._text = self._text[self._start :]
            self._base += self._start
            self._start = 0
        return chunk

    def _room_in(self, window: str) -> int:
        """The longest chunk that may begin here: less than `max_chunk_chars` where it would be too long when spoken."""
        room = self._room_of(window)
        if self._respell:
            while room > 1 and _spoken_chars(self._respell(window[:room])) > MAX_SPOKEN_CHARS:
                room //= 2
        return room

    def _room_of(self, window: str) -> int:
        if _spoken_chars(window) <= MAX_SPOKEN_CHARS:
            return self._max_chars
        chars = 0
        for end, char in enumerate(window):
            chars += 1 + GROWTH_CHARS * (_MANY_WORDS.match(char) is not None)
            if chars > MAX_SPOKEN_CHARS:
                return max(1, min(end, self._max_chars))
        return self._max_chars

    def _cut_before(self, window: str, remaining: int, cut: Cut) -> tuple[int, Cut]:
        """Up to a place that no chunk crosses, and why it ends there."""
        if remaining <= self._room:
            return remaining, cut
        cuts = self._good_cuts(window)
        return self._batch(cuts) or self._forced(window, cuts)

    def _cut_in_the_open(self, window: str, eager: bool) -> tuple[int, Cut]:
        cuts = self._good_cuts(window)
        if eager and (found := self._earliest(window, cuts) if self._first else self._most(window, cuts)):
            return found
        if len(window) > min(self._batch_chars, self._room) and (found := self._batch(cuts)):
            return found
        if len(window) > self._room:
            return self._forced(window, cuts)
        if eager and self._idle:
            return self._idle_end(window), Cut.IDLE
        return 0, Cut.IDLE

    def _good_cuts(self, window: str) -> list[tuple[int, Cut]]:
        """Boundaries within the longest chunk, moved before tags that belong to what follows, with words before them.

        Clauses are listed only when they would do for a start.
        """
        cuts: list[tuple[int, Cut]] = []
        readings = reading_spans(window)
        for boundary, cut in boundaries(window):
            end = self._before_trailing_tags(window, boundary)
            if any(start < end < stop for start, stop in readings):
                continue
            if end > self._room or not has_speech(self._tag.sub("", window[:end])):
                continue
            words = self._count_words(window[:end])
            if cut is not Cut.CLAUSE or (end >= CLAUSE_CHARS and words >= CLAUSE_WORDS):
                cuts.append((end, cut))
        return cuts

    def _earliest(self, window: str, cuts: list[tuple[int, Cut]]) -> tuple[int, Cut] | None:
        candidates = cuts[:1]
        if words := [end for end in self._word_ends(window) if end <= self._room]:
            candidates.append((words[0], Cut.WORDS))
        return min(candidates, key=lambda candidate: candidate[0], default=None)

    def _most(self, window: str, cuts: list[tuple[int, Cut]]) -> tuple[int, Cut] | None:
        if found := self._batch(cuts) or next((c for c in cuts if c[1] is not Cut.CLAUSE), None):
            return found
        if cuts:
            return cuts[-1]
        words = [end for end in self._word_ends(window) if end <= self._room]
        return (words[-1], Cut.WORDS) if words else None

    def _batch(self, cuts: list[tuple[int, Cut]]) -> tuple[int, Cut] | None:
        """The last sentence end within a batch."""
        sentences = [c for c in cuts if c[1] is not Cut.CLAUSE and c[0] <= min(self._batch_chars, self._room)]
        return sentences[-1] if sentences else None

    def _forced(self, window: str, cuts: list[tuple[int, Cut]]) -> tuple[int, Cut]:
        """The best end for more text than the longest chunk holds: a sentence, a clause, a word, or anywhere."""
        sentences = [c for c in cuts if c[1] is not Cut.CLAUSE]
        if found := (sentences or cuts)[-1:]:
            return found[0]
        readings = reading_spans(window)
        spaces = [found.start() for found in re.finditer(r"\s", window[: self._room + 1])]
        spaces = [at for at in reversed(spaces) if not any(start < at < stop for start, stop in readings)]
        for space in sorted(spaces, key=lambda at: parts_number(window, at)):
            if end := self._before_trailing_tags(window, space):
                return end, Cut.LENGTH
        end = self._room
        for start, stop in readings:
            if start < end < stop:
                end = start or stop
                if not start and window[stop - 1] != END:
                    return 0, Cut.LENGTH  # its words have not all come
        if end >= len(window):
            return len(window), Cut.LENGTH
        while joins_previous(window[end]):  # ends: the cleaner leaves no longer rows of marks
            end -= 1
        for tag in self._tag.finditer(window):
            if tag.start() < end < tag.end():
                end = tag.start()
        return self._before_trailing_tags(window, end) or end, Cut.LENGTH

    def _idle_end(self, window: str) -> int:
        """The end of the whole words in `window` if they are enough to speak, else 0."""
        # That nothing follows stands for the look-ahead a sentence end needs.
        if not self._cleaner.in_gap and not WHOLE_END.search(window):
            window = window[: max(window.rfind(" "), 0)]
        sentence = any(end == len(window) and cut is Cut.SENTENCE for end, cut in boundaries(window + " A"))
        if window.endswith(".") and not sentence:  # "I saw Mr."
            window = window[: max(window.rfind(" "), 0)]
        while window[-1:].isdigit() and not sentence:  # "1,234 567" may go on
            window = window[: max(window.rfind(" "), 0)]
        if window.count(START) > window.count(END):
            window = window[: window.rindex(START)].rstrip()
        end = self._before_trailing_tags(window, len(window))
        sentence = sentence and end == len(window) and has_speech(self._tag.sub("", window))
        return end if sentence or self._count_words(window[:end]) >= IDLE_WORDS else 0

    def _before_trailing_tags(self, window: str, end: int) -> int:
        trailing = self._trailing_tags.search(window[:end])
        return trailing.start() if trailing else end

    def _word_ends(self, window: str) -> Iterator[int]:
        """The ends of whole words from the first at which there are enough for a start."""
        words, text, readings = 0, window, reading_spans(window)
        for match in re.finditer(r"\S+", text):
            here = self._count_words(match[0]) if match.end() < len(text) else 0
            words += here
            inside = any(start < match.end() < stop for start, stop in readings)
            if here and words >= FIRST_WORDS and not inside and not parts_number(text, match.end()):
                yield match.end()

    def _count_words(self, text: str) -> int:
        """Words with a letter or digit, tags left out; where words are unspaced, two CJK characters are one."""
        text = self._tag.sub(" ", text)
        spaced = CJK.sub(" ", text)
        return sum(map(has_speech, spaced.split())) + (len(text) - len(CJK.sub("", text)) + 1) // 2


def _spoken_chars(text: str) -> int:
    """About how many characters a text has as words."""
    return len(_MANY_WORDS.findall(text)) * GROWTH_CHARS + len(text)
