"""The plain text that markup leaves: given out as it comes, with where each part of it came from.

`PlainText` holds the state of a reading, of plain values alone, so that a session can be taken up by another process.
"""

from __future__ import annotations

import html
from bisect import bisect_right
from dataclasses import dataclass, field
from textwrap import wrap

from app.speech.text.marks import AS, END, MAX_READING_CHARS, as_written, reading_mark, without_marks
from app.speech.text.say_as import said_as

ENDED = ".!?…:;,—–-。！？｡।॥؟۔،؛、，；：" + END
CLOSERS = "\"'”’)]}»*_ \n"


@dataclass
class MarkupState:
    """Where a reading stands. Every field is of JSON."""

    held: str = ""
    """Received, and not yet decided."""
    raw_chars: int = 0
    """Of the text as it was written, up to `held`."""
    plain_chars: int = 0
    line_start: bool = True
    blank: bool = False
    """The line before was empty."""
    line_began: int = 0
    """In plain text."""
    line_chars: int = 0
    """Of the line before."""
    block: str = ""
    """What the present line is: a heading, an item, a row; empty: a paragraph's."""
    tail: str = ""
    """The last characters given out, without the space behind them."""
    prev: str = ""
    """The last character read."""
    cell: bool = False
    """A comma is due before the next words of a row …"""
    gap: bool = False
    """… or a space."""
    fence: str = ""
    """The run that opened a listing."""
    code_run: int = 0
    """Backticks that opened code within a line."""
    emphasis: int = 0
    """Open runs of "*"."""
    skipped: str = ""
    """The element whose content is not read …"""
    depth: int = 0
    """… how deep in itself, and, in a link's target, open brackets."""
    said: str = ""
    """An element whose text is spoken otherwise is open: its name …"""
    said_as: str = ""
    """… and its alias, or how it is to be interpreted."""
    inner: str = ""
    """The text within it so far."""
    rate: float = 1.0
    """At which the words are spoken that come next …"""
    rates: list[float] = field(default_factory=list)
    """… and of the open `<prosody>`s, each within the one before."""
    sentence: bool = False
    """An `<s>` is a sentence of SSML, rather than HTML's struck text."""
    ignored: list[str] = field(default_factory=list)
    """Elements that were met and not done."""


class PlainText:
    """Takes what is to be read aloud, in its order; `source` says where it stood."""

    def __init__(self, state: MarkupState) -> None:
        self.state = state
        self._out: list[str] = []
        self._anchors: list[tuple[int, int]] = []
        self._base = 0  # where the text that is being read begins, as it was written
        self._at = 0  # how far it is read

    def source(self, plain: int) -> int:
        """Where in the text as it was written the plain text from `plain` on came from."""
        found = bisect_right(self._anchors, (plain, 1 << 62)) - 1
        if found < 0:
            return plain
        at, raw = self._anchors[found]
        return min(raw + plain - at, self.state.raw_chars)

    def forget(self, plain: int) -> None:
        """Let go of what `source` needs for plain text before `plain`."""
        found = bisect_right(self._anchors, (plain, 1 << 62)) - 1
        if found > 0:
            del self._anchors[:found]

    def _say(self, text: str) -> None:
        state = self.state
        if state.said:  # its words are replaced: a pause or a name among them has no place
            text = as_written(text)
        if not text:
            return
        words = text.strip()
        if state.block == "row":
            text = self._in_row(words, text)
            if not text:
                return
        raw = self._base + self._at
        if not self._anchors or raw - state.plain_chars != self._anchors[-1][1] - self._anchors[-1][0]:
            self._anchors.append((state.plain_chars, raw))
        self._out.append(text)
        state.plain_chars += len(text)
        if words:
            state.tail = (state.tail + words)[-3:]
        if state.said:
            self._within_said(words and text)

    def _in_row(self, words: str, text: str) -> str:
        """Cells parted by commas, with no space before them."""
        state = self.state
        if not words:
            state.gap = True
            return ""
        core = state.tail.rstrip(CLOSERS)
        spaced = state.gap or state.cell or text[0].isspace()
        before = ", " if state.cell and core and core[-1] not in ENDED else " " if spaced else ""
        state.gap, state.cell = text[-1].isspace(), False
        return before + " ".join(words.split())

    def _within_said(self, text: str) -> None:
        self.state.inner += text
        if len(self.state.inner) > MAX_READING_CHARS:
            self._end_said()

    def _end_said(self) -> None:
        state = self.state
        spoken = html.unescape(state.said_as)
        if state.said == "say-as":
            spoken = said_as(state.inner, state.said_as, state.ignored)
        state.said = ""
        first, *others = wrap(without_marks(spoken), MAX_READING_CHARS) or [""]
        self._say(AS + first + END)
        self._say_more(others)
        state.tail = (state.tail + (spoken or state.inner))[-3:]
        state.prev = "x"

    def _say_as(self, written: str, spoken: str) -> None:
        """What is written as `written`, in other words, however many."""
        first, *others = wrap(without_marks(spoken), MAX_READING_CHARS) or [""]
        self._say(reading_mark(without_marks(written), first))
        self._say_more(others)

    def _say_more(self, words: list[str]) -> None:
        for more in words:
            self._say(" " + reading_mark("", more))

    def _taken(self) -> str:
        out = "".join(self._out)
        self._out.clear()
        return out
