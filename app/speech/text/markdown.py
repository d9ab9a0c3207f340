"""What the beginning of a line means in Markdown, decided as early as it can be.

Pure functions of the text from the first character of a line that is no space; None says that more must come. The rules
are CommonMark's with tables, task lists and footnotes, as far as that is heard; indented code is elsewhere (`code`).
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import NamedTuple

MAX_RULER_CHARS = 120

_RULER = re.compile(r"[-*_=|:+ \t\r]+")
_HEADING = re.compile(r"#{1,6}(?=[ \t\r\n])")
_HEADING_PART = re.compile(r"#{1,6}\Z")
_BULLET = re.compile(r"[-*+•‣▪◦●○][ \t]+(?:\[[ xX]\](?=[ \t])[ \t]*)?")
_TASK_PART = re.compile(r"[-*+•‣▪◦●○][ \t]*(?:\[[ xX]?\]?)?\Z")
_NUMBERED = re.compile(r"(\d{1,3})[.)](?=[ \t])")
_NUMBER_PART = re.compile(r"\d{1,3}[.)]?\Z")
_QUOTE = re.compile(r">[ \t]?")
_FENCE = re.compile(r"(`{3,100})([^`\n]{0,200})\n|(~{3,100})([^\n]{0,200})\n")
_FENCE_PART = re.compile(r"(?:`{1,2}|`{3,100}[^`\n]{0,200}|~{1,2}|~{3,100}[^\n]{0,200})\Z")
_DEFINITION = re.compile(
    r"\[(?!\^)[^\]\n]{1,200}\]:[ \t]*(?:<|#|\.{0,2}/|www\.|[a-z][a-z0-9+.-]*:/|mailto:|\S+\.(?:html?"
    r"|md|pdf|png|jpe?g|gif|svg)\b)"
    r"[^\n]{0,1000}(?:\n|\Z)"
)
_DEFINITION_PART = re.compile(r"\[(?!\^)[^\]\n]{0,200}(?:\](?::[ \t]{0,9}\S{0,300})?)?\Z")
_FOOTNOTE = re.compile(r"\[\^[^\]\n]{1,100}\]:[ \t]*")
_FOOTNOTE_PART = re.compile(r"\[\^[^\]\n]{0,100}\]?\Z")


class Line(StrEnum):
    """What a line begins."""

    TEXT = "text"
    HEADING = "heading"
    ITEM = "item"
    NUMBERED = "numbered"
    QUOTE = "quote"
    ROW = "row"
    RULER = "ruler"
    FENCE = "fence"
    DEFINITION = "definition"
    FOOTNOTE = "footnote"


class Opening(NamedTuple):
    """What a line begins, and up to where its marks go. `fence` is the run that opens a listing."""

    kind: Line
    end: int
    fence: str = ""


def opening(text: str, at: int, *, final: bool, lists: bool) -> Opening | None:  # noqa: PLR0911
    """What the line from `at` on begins; None while that is undecided. `lists`: a number may begin an item here."""
    first = text[at]
    if first in "-*_=|:+•‣▪◦●○":
        return _ruled(text, at, final=final)
    if first == "#":
        return _found(Line.HEADING, _HEADING, text, at) or _rest(_HEADING_PART, text, at, final=final)
    if first == ">":
        return _found(Line.QUOTE, _QUOTE, text, at)
    if first in "`~":
        return _fenced(text, at, final=final)
    if first == "[":
        return _bracketed(text, at, final=final)
    if first.isdigit():
        if (found := _NUMBERED.match(text, at)) and (lists or found[1] == "1"):
            return Opening(Line.NUMBERED, at)
        return _rest(_NUMBER_PART, text, at, final=final)
    return Opening(Line.TEXT, at)


def _found(kind: Line, pattern: re.Pattern[str], text: str, at: int) -> Opening | None:
    found = pattern.match(text, at)
    return Opening(kind, found.end()) if found else None


def _rest(part: re.Pattern[str], text: str, at: int, *, final: bool) -> Opening | None:
    """Text, unless it may still become what `part` is the beginning of."""
    return None if not final and part.match(text, at) else Opening(Line.TEXT, at)


def _bracketed(text: str, at: int, *, final: bool) -> Opening | None:
    """The definition of a link, whose whole line is known then, or of a footnote, or text."""
    if found := _DEFINITION.match(text, at):
        return Opening(Line.DEFINITION, found.end()) if final or found[0].endswith("\n") else None
    if footnote := _found(Line.FOOTNOTE, _FOOTNOTE, text, at):
        return footnote
    part = _DEFINITION_PART.match(text, at) or _FOOTNOTE_PART.match(text, at)
    return None if part and not final else Opening(Line.TEXT, at)


def _ruled(text: str, at: int, *, final: bool) -> Opening | None:
    """A rule, an underline, the line between a table's head and its body; or else a row, or an item of a list."""
    ruler = _RULER.match(text, at)
    end = ruler.end() if ruler else at
    if end - at >= MAX_RULER_CHARS:
        return Opening(Line.RULER, at + MAX_RULER_CHARS)
    if end < len(text) and text[end] == "\n":
        return Opening(Line.RULER, end)
    if end == len(text) and end > at:
        return Opening(Line.RULER, end) if final else None
    if text[at] == "|":
        return Opening(Line.ROW, at + 1)
    if not final and _TASK_PART.match(text, at):
        return None
    return _found(Line.ITEM, _BULLET, text, at) or Opening(Line.TEXT, at)


def _fenced(text: str, at: int, *, final: bool) -> Opening | None:
    found = _FENCE.match(text + "\n" if final else text, at)
    if found:
        return Opening(Line.FENCE, min(found.end(), len(text)), fence=found[1] or found[3])
    return _rest(_FENCE_PART, text, at, final=final)
