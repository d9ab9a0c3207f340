"""Text on its way to the voice: cleaned, then cut into the chunks that are spoken one by one.

`Cleaner` and `TextSplitter` are incremental and pure: a character, a word or a book at a time gives the same result.
They know no clock (the caller says when text went idle or audio is needed), no engine, and nothing of how numbers or
foreign scripts are read: that is the voice model's matter. The rules of cutting follow Pipecat (a sentence ends only
once the next non-space character is there: "$29." against "$29. Next") and LiveKit (long batches once audio is ahead).
"""

from __future__ import annotations

import re
import unicodedata
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from app.errors import ConfigurationError, TextAfterEnd
from app.speech.token_layout import ORPHEUS_TAGS

_MAX_MARKS = 30  # combining marks on one letter, the bound of Unicode's Stream-Safe format (UAX #15, section 13)
_TAG_HOLD_CHARS = 12  # a "<" waits this long to become a tag
_TOKEN = re.compile(r"\s+|</?[A-Za-z][A-Za-z_-]*/?>|[^\s<]+|<")
_TAG_SHAPE = re.compile(r"<[A-Za-z][A-Za-z_-]{0,30}>")


def clean(text: str, *, tags: Sequence[str] = ORPHEUS_TAGS) -> str:
    """The text as the splitter sees it: see `Cleaner` for what happens to each kind of character."""
    cleaner = Cleaner(tags)
    return cleaner.push(text) + cleaner.finish()


def has_speech(text: str) -> bool:
    """Whether cleaned text has anything to speak: a letter or a digit of any script, or a tag."""
    return any(map(str.isalnum, text))


def joins_previous(char: str) -> bool:
    """Whether `char` may belong to the character before it: a combining mark, or a Hangul vowel or tail.

    Every other character starts afresh under NFC, so text may be normalised in parts, cut before such characters.
    """
    if char < "\u0300":
        return False
    hangul = "\u1160" <= char <= "\u11ff" or "\ud7b0" <= char <= "\ud7fb"
    return hangul or unicodedata.category(char)[0] == "M"


class Cleaner:
    """Makes cleaned text of pieces of any size; the pieces' borders leave no trace.

    * Unicode is composed (NFC); beyond 30 combining marks on one letter the rest are dropped.
    * Control characters (NUL, ESC, ...) and invisible format characters (zero-width spaces and joiners, byte-order and
      direction marks, soft hyphens) are dropped. Lone surrogates become U+FFFD.
    * Whitespace of every kind becomes one space, or one newline where it holds a blank line: a paragraph ends there.
      Text neither begins nor ends with whitespace.
    * Known tags are kept, written as the checkpoint writes them ("<Laugh>" becomes "<laugh>"). Other markup of that
      shape ("<b>", "</laugh>", "<br/>") is dropped; any other "<" is kept.
    * Emoji and all scripts pass unchanged.
    """

    def __init__(self, tags: Sequence[str] = ORPHEUS_TAGS) -> None:
        if misshapen := [tag for tag in tags if not _TAG_SHAPE.fullmatch(tag)]:
            raise ConfigurationError(f"Speech tags must look like <laugh>; {misshapen[0]!r} does not.", param="tags")
        self._tags = {tag.lower(): tag for tag in tags}
        self._hold = max([_TAG_HOLD_CHARS, *(len(tag) - 1 for tag in tags)])
        self._partial_tag = re.compile(rf"<[A-Za-z_/-]{{0,{self._hold - 1}}}\Z")
        self._marks = 0
        self._unsettled = ""  # a coming mark may still change it
        self._undecided = ""  # normalised, but may be the beginning of a tag
        self._gap = ""  # whitespace since the last character given out
        self._newlines = 0
        self._began = False

    @property
    def in_gap(self) -> bool:
        """Whether whitespace follows the last character given out, so that its word is complete."""
        return bool(self._gap) and not self._undecided

    def push(self, piece: str) -> str:
        """Take a piece; return the cleaned characters that nothing to come can change."""
        kept = self._unsettled + self._filter(piece)
        settled = len(kept) - 1
        while settled > 0 and joins_previous(kept[settled]):
            settled -= 1
        settled = max(settled, 0)
        self._unsettled = kept[settled:]
        return self._scan(unicodedata.normalize("NFC", kept[:settled]))

    def settle(self) -> str:
        """Return the character held back for a coming mark; only the beginning of a tag waits on."""
        settled, self._unsettled = self._unsettled, ""
        return self._scan(unicodedata.normalize("NFC", settled))

    def finish(self) -> str:
        """Return everything held back: nothing to come belongs to it. Pieces may follow all the same."""
        settled, self._unsettled = self._unsettled, ""
        return self._scan(unicodedata.normalize("NFC", settled), final=True)

    def _filter(self, piece: str) -> str:
        if piece.isascii() and piece.isprintable():
            self._marks = 0 if piece else self._marks
            return piece
        kept: list[str] = []
        for char in piece:
            category = unicodedata.category(char)
            if joins_previous(char):
                self._marks += 1
                if self._marks > _MAX_MARKS:
                    continue
            elif category in ("Cc", "Cf") and not char.isspace():
                continue
            else:
                self._marks = 0
            kept.append("\ufffd" if category == "Cs" else char)
        return "".join(kept)

    def _scan(self, text: str, *, final: bool = False) -> str:
        """Collapse whitespace and resolve tags in normalised text, each "<" decided once and for all."""
        text = self._undecided + text
        partial = None if final else self._partial_tag.search(text)
        decided = partial.start() if partial else len(text)
        self._undecided = text[decided:]
        out: list[str] = []
        for match in _TOKEN.finditer(text, 0, decided):
            token = match[0]
            if token.isspace():
                self._newlines += token.count("\n") + 2 * token.count("\u2029")
                self._gap = "\n" if self._newlines > 1 else " "
                continue
            if len(token) <= self._hold + 1 and token[0] == "<" and token[-1] == ">":
                token = self._tags.get(token.lower(), "")
            if token:
                out += (self._gap, token) if self._began else (token,)
                self._gap, self._newlines, self._began = "", 0, True
        return "".join(out)


class Cut(StrEnum):
    """Why a chunk ends where it does."""

    SENTENCE = "sentence"
    PARAGRAPH = "paragraph"
    CLAUSE = "clause"
    WORDS = "words"  # enough words for a start
    IDLE = "idle"  # the text stopped coming
    LENGTH = "length"  # no better place within the longest chunk
    FLUSH = "flush"
    END = "end"


@dataclass(frozen=True)
class Chunk:
    """One piece to speak: `text` is characters [start, end) of the cleaned stream, its paragraph marks made spaces."""

    text: str
    start: int
    end: int
    cut: Cut


# A run of stops with the quotes and brackets that close after it. Possessive: a run still growing is no match.
_CLOSING = "\"'”’)]}»*_"
_CLOSERS = rf"[{re.escape(_CLOSING)}]*+"
_WIDE_CLOSERS = rf"[{re.escape(_CLOSING)}」』）】》〉]*+"
_BOUNDARY = re.compile(
    rf"(?P<stop>[.!?…]++{_CLOSERS}(?=\s))"
    rf"|(?P<wide_stop>[。！？｡।॥؟۔]++{_WIDE_CLOSERS}(?=[\s\S]))"
    rf"|(?P<clause>[,;:،؛]++{_CLOSERS}(?=\s)|[，、；：]++{_WIDE_CLOSERS}(?=[\s\S])|\s[-–—]++(?=\s)|—++(?=[^\s—]))"
    r"|(?P<paragraph>\n)"
)
# The end of text gone idle that needs no following space to be whole; "3." and "1," may be half a number.
_WHOLE_END = re.compile(rf"(?:[!?…;。！？।؟۔]|(?<!\d)[.,:]){_CLOSERS}\Z")
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
_OPENERS = "\"'“‘«([{*_—-"


def _words(listed: str) -> frozenset[str]:
    return frozenset(listed.split())


# Abbreviations, without their last stop. A name or a word always follows those of the first set.
_NEVER_ENDS = _words(
    "mr mrs ms mx dr prof st ste mt ft gen col sgt capt cpl lt cmdr adm maj rev hon fr sen rep gov pres messrs mme "
    "mlle vs v cf viz approx est dept univ assn bros ave blvd rd esp incl ca"
)
_BEFORE_NUMBERS = _words(
    "no nos fig figs vol vols p pp pg ch chap sec art eq ver tel ext op par para jan feb mar apr jun jul aug sep sept "
    "oct nov dec"
)
_MAY_END = _words("etc inc ltd co corp llc jr sr esq ph.d m.d b.a m.a a.m p.m al")
_DOTTED_LETTERS = re.compile(r"(?:[^\W\d_]\.)+[^\W\d_]")


def boundaries(text: str) -> Iterator[tuple[int, Cut]]:
    """Every (end, kind) at which `text` may be cut well, in order; kind is SENTENCE, PARAGRAPH or CLAUSE.

    A place counts only once the character after it (after its space, if it has one) is in `text`.
    """
    sentence_start = 0
    for match in _BOUNDARY.finditer(text):
        if match["stop"]:
            cut = _judge_stop(text, sentence_start, match)
        elif match["wide_stop"]:
            cut = Cut.SENTENCE
        else:
            cut = Cut.PARAGRAPH if match["paragraph"] else Cut.CLAUSE
        if cut in (Cut.SENTENCE, Cut.PARAGRAPH):
            sentence_start = match.end()
        if cut:
            yield (match.start() if cut is Cut.PARAGRAPH else match.end()), cut


def _judge_stop(text: str, sentence_start: int, match: re.Match[str]) -> Cut | None:
    """What the stops in `match` end, whitespace following them: a sentence, an ellipsis's clause, or nothing."""
    stops = match[0].rstrip(_CLOSING)
    quoted = len(stops) < len(match[0])
    after = text[match.end() + 1 : match.end() + 2]
    if text[match.end()] == "\n":
        return Cut.SENTENCE
    if stops == "." or stops[-1] in "!?":
        if quoted and after.islower():  # "Really?" he said
            return None
        abbreviates = stops == "." and _abbreviates(text[sentence_start : match.start()], after)
        return None if abbreviates else Cut.SENTENCE
    return Cut.CLAUSE if after.islower() else Cut.SENTENCE


def _abbreviates(before: str, after: str) -> bool:
    """Whether the full stop after `before` (the sentence so far) is no end, when `after` is the next character."""
    words = before.split()
    word = words[-1].lstrip(_OPENERS) if words else ""
    folded = word.lower()
    if folded in _NEVER_ENDS:
        return True
    if folded in _BEFORE_NUMBERS:
        return after.isdigit()
    if folded in _MAY_END:
        return not after.isupper()
    if _DOTTED_LETTERS.fullmatch(word):
        return True
    if len(word) == 1 and word.isupper():
        pronoun = word == "I" and len(words) > 1 and words[-2][0].islower()
        return not pronoun
    enumerates = len(words) < 2 or words[-2][-1] in ":;"  # "1. First", "the plan: 1. First"
    return enumerates and len(word) <= 3 and word.isdigit()


class TextSplitter:
    """Cuts text that arrives in pieces into chunks to speak.

    Push text as it comes and call `next_chunk` after each push, until it returns None:

        splitter.push("Hello there. How")
        splitter.next_chunk(eager=True)     # Chunk(text="Hello there.", start=0, end=12, cut=Cut.SENTENCE)

    `eager`: audio is needed now. The first chunk (also the first after a flush) is then cut at the earliest sentence
    end, clause of 20 characters and 4 words, or 12 words; a later one takes all the whole sentences that are there, up
    to `batch_chars`, or else the longest clause or row of words that would do for a start. Not eager, a chunk is cut
    only when a full batch is there. Text before a flush or the close is always ready, in batches of whole sentences. No
    chunk is longer than `max_chunk_chars`; a tag is never cut, and goes with the words after it.
    """

    def __init__(
        self,
        *,
        tags: Sequence[str] = ORPHEUS_TAGS,
        max_chunk_chars: int = 300,
        batch_chars: int = 280,
        first_clause_chars: int = 20,
        first_clause_words: int = 4,
        first_words: int = 12,
        idle_words: int = 3,
        begun: bool = False,
    ) -> None:
        """`begun`: the turn is being spoken already, so the first chunk need not be early."""
        self._cleaner = Cleaner(tags)
        longest_tag = max(map(len, tags), default=0)
        if max_chunk_chars < longest_tag + _MAX_MARKS + 2:
            needed = longest_tag + _MAX_MARKS + 2
            raise ConfigurationError(f"max_chunk_chars is {max_chunk_chars}; it must be at least {needed}.")
        any_tag = "|".join(map(re.escape, tags)) or "(?!)"
        self._tag = re.compile(any_tag)
        self._trailing_tags = re.compile(rf"(?:\s*(?:{any_tag}))+\Z")
        self._max_chars = max_chunk_chars
        self._batch_chars = min(batch_chars, max_chunk_chars)
        self._window_chars = max_chunk_chars + max(longest_tag, 2)
        self._clause_chars = first_clause_chars
        self._clause_words = first_clause_words
        self._first_words = first_words
        self._idle_words = idle_words
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
        while self._text[self._start : self._start + 1].isspace():
            self._start += 1
        window = self._text[self._start : self._start + self._window_chars]
        if self._marks:
            remaining = self._marks[0][0] - self._base - self._start
            end, cut = self._cut_before_mark(window[:remaining], remaining)
        else:
            end, cut = self._cut_in_the_open(window, eager)
        return self._take(window, end, cut) if end else None

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
        chunk = Chunk(window[:end].replace("\n", " "), start, start + end, cut)
        self._start += end
        self._first = bool(self._marks) and chunk.end == self._marks[0][0]
        if self._first:
            self._marks.popleft()
        if self._start > 4 * self._window_chars:  # not at every chunk: each copies the rest of the text
            self._text = self._text[self._start :]
            self._base += self._start
            self._start = 0
        return chunk

    def _cut_before_mark(self, window: str, remaining: int) -> tuple[int, Cut]:
        if remaining <= self._max_chars:
            return remaining, self._marks[0][1]
        cuts = self._good_cuts(window)
        return self._batch(cuts) or self._forced(window, cuts)

    def _cut_in_the_open(self, window: str, eager: bool) -> tuple[int, Cut]:
        cuts = self._good_cuts(window)
        if eager and (found := self._earliest(window, cuts) if self._first else self._most(window, cuts)):
            return found
        if len(window) > self._batch_chars and (found := self._batch(cuts)):
            return found
        if len(window) > self._max_chars:
            return self._forced(window, cuts)
        if eager and self._idle:
            return self._idle_end(window), Cut.IDLE
        return 0, Cut.IDLE

    def _good_cuts(self, window: str) -> list[tuple[int, Cut]]:
        """Boundaries within the longest chunk, moved before tags that belong to what follows, with words before them.

        Clauses are listed only when they would do for a start.
        """
        cuts: list[tuple[int, Cut]] = []
        for boundary, cut in boundaries(window):
            end = self._before_trailing_tags(window, boundary)
            if end > self._max_chars or not has_speech(self._tag.sub("", window[:end])):
                continue
            words = self._count_words(window[:end])
            if cut is not Cut.CLAUSE or (end >= self._clause_chars and words >= self._clause_words):
                cuts.append((end, cut))
        return cuts

    def _earliest(self, window: str, cuts: list[tuple[int, Cut]]) -> tuple[int, Cut] | None:
        candidates = cuts[:1]
        if words := [end for end in self._word_ends(window) if end <= self._max_chars]:
            candidates.append((words[0], Cut.WORDS))
        return min(candidates, key=lambda candidate: candidate[0], default=None)

    def _most(self, window: str, cuts: list[tuple[int, Cut]]) -> tuple[int, Cut] | None:
        if found := self._batch(cuts) or next((c for c in cuts if c[1] is not Cut.CLAUSE), None):
            return found
        if cuts:
            return cuts[-1]
        words = [end for end in self._word_ends(window) if end <= self._max_chars]
        return (words[-1], Cut.WORDS) if words else None

    def _batch(self, cuts: list[tuple[int, Cut]]) -> tuple[int, Cut] | None:
        """The last sentence end within a batch."""
        sentences = [c for c in cuts if c[1] is not Cut.CLAUSE and c[0] <= self._batch_chars]
        return sentences[-1] if sentences else None

    def _forced(self, window: str, cuts: list[tuple[int, Cut]]) -> tuple[int, Cut]:
        """The best end for more text than the longest chunk holds: a sentence, a clause, a word, or anywhere."""
        sentences = [c for c in cuts if c[1] is not Cut.CLAUSE]
        if found := (sentences or cuts)[-1:]:
            return found[0]
        for space in reversed(list(re.finditer(r"\s", window[: self._max_chars + 1]))):
            if end := self._before_trailing_tags(window, space.start()):
                return end, Cut.LENGTH
        end = self._max_chars
        while joins_previous(window[end]):  # ends: the cleaner leaves no longer rows of marks
            end -= 1
        for tag in self._tag.finditer(window):
            if tag.start() < end < tag.end():
                end = tag.start()
        return self._before_trailing_tags(window, end) or end, Cut.LENGTH

    def _idle_end(self, window: str) -> int:
        """The end of the whole words in `window` if they are enough to speak, else 0."""
        # That nothing follows stands for the look-ahead a sentence end needs.
        if not self._cleaner.in_gap and not _WHOLE_END.search(window):
            window = window[: max(window.rfind(" "), 0)]
        sentence = any(end == len(window) and cut is Cut.SENTENCE for end, cut in boundaries(window + " A"))
        if window.endswith(".") and not sentence:  # "I saw Mr."
            window = window[: max(window.rfind(" "), 0)]
        end = self._before_trailing_tags(window, len(window))
        sentence = sentence and end == len(window) and has_speech(self._tag.sub("", window))
        return end if sentence or self._count_words(window[:end]) >= self._idle_words else 0

    def _before_trailing_tags(self, window: str, end: int) -> int:
        trailing = self._trailing_tags.search(window[:end])
        return trailing.start() if trailing else end

    def _word_ends(self, window: str) -> Iterator[int]:
        """The ends of whole words from the first at which there are enough for a start."""
        words = 0
        for match in re.finditer(r"\S+", window):
            here = self._count_words(match[0]) if match.end() < len(window) else 0
            words += here
            if here and words >= self._first_words:
                yield match.end()

    def _count_words(self, text: str) -> int:
        """Words with a letter or digit, tags left out; where words are unspaced, two CJK characters are one."""
        text = self._tag.sub(" ", text)
        spaced = _CJK.sub(" ", text)
        return sum(map(has_speech, spaced.split())) + (len(text) - len(_CJK.sub("", text)) + 1) // 2
