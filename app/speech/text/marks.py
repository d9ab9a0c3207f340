"""Marks within plain text: a pause, and words that are spoken otherwise than they are written.

They are characters of Unicode's private planes, so that plain text stays a string with offsets. What markup says is
written with them in the front door; the worker cuts around them and takes them apart. `without_marks` keeps a user's
text from holding any: no one writes them, and no voice could speak them.

    pause       one character, U+100000 and so many hundredths of a second
    rate        one character: what follows is spoken so much faster, until the next
    reading     START written AS spoken END; `written` may be empty
"""

from __future__ import annotations

import re
from collections.abc import Iterator

MAX_PAUSE_S = 30.0
MAX_READING_CHARS = 200
"""Of either side: a reading is never cut, and must fit into one chunk."""

START, AS, END = "\U000f0001", "\U000f0002", "\U000f0003"

MIN_RATE, MAX_RATE = 0.5, 2.0

_PAUSE_BASE = 0x100000
_RATE_BASE = 0xF1000
_PRIVATE = re.compile("[\ue000-\uf8ff\U000f0000-\U0010fffd]")
_READING = re.compile(f"{START}([^{START}{AS}{END}]*)(?:{AS}([^{START}{AS}{END}]*))?(?:{END}|\\Z)")
PAUSE = re.compile("[\U00100000-\U0010ffff]")
RATE = re.compile("[\U000f1000-\U000f1fff]")


def pause_mark(seconds: float) -> str:
    """A mark for a pause of `seconds`, 0 to MAX_PAUSE_S."""
    return chr(_PAUSE_BASE + round(100 * max(0.0, min(seconds, MAX_PAUSE_S))))


def seconds_of(mark: str) -> float:
    """How long a pause is."""
    return (ord(mark) - _PAUSE_BASE) / 100


def rate_mark(rate: float) -> str:
    """A mark from which on text is spoken `rate` times as fast, MIN_RATE to MAX_RATE."""
    return chr(_RATE_BASE + round(100 * max(MIN_RATE, min(rate, MAX_RATE))))


def rate_of(text: str) -> float:
    """The rate at the end of a text: of its last mark, or 1."""
    marks = () if text.isascii() else RATE.findall(text)
    return (ord(marks[-1]) - _RATE_BASE) / 100 if marks else 1.0


def is_pause(text: str) -> bool:
    """Whether `text` is one pause and nothing else."""
    return PAUSE.fullmatch(text) is not None


def reading_mark(written: str, spoken: str) -> str:
    """`written`, to be spoken as `spoken`."""
    return f"{START}{written[:MAX_READING_CHARS]}{AS}{spoken[:MAX_READING_CHARS]}{END}"


def without_marks(text: str) -> str:
    """A user's text without characters that would be taken for marks."""
    return text if text.isascii() else _PRIVATE.sub("", text)


def as_written(text: str) -> str:
    """Text with marks as it was written."""
    return text if text.isascii() else _without_signs(_READING.sub(r"\1", text))


def as_spoken(text: str) -> str:
    """Text with marks as it is spoken, pauses and rates left out."""
    return text if text.isascii() else _without_signs("".join(part for part, _ in marked_parts(text)))


def _without_signs(text: str) -> str:
    return RATE.sub("", PAUSE.sub("", text))


def marked_parts(text: str) -> Iterator[tuple[str, bool]]:
    """Text with marks in parts: what is to be read, and what is `fixed`: spoken exactly so."""
    done = 0
    for found in _READING.finditer(text):
        yield text[done : found.start()], False
        yield found[1] if found[2] is None else found[2], found[2] is not None
        done = found.end()
    yield text[done:], False


def reading_spans(text: str) -> list[tuple[int, int]]:
    """Where the readings are, within which nothing may be cut."""
    return [] if text.isascii() else [found.span() for found in _READING.finditer(text)]
