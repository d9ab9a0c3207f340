"""Text normalisation: one chunk of plain text as the model reads it, numbers and abbreviations as words.

A pure function of the chunk and the options, so that a chunk goes on at another worker with the prompt that it began
with. English has rules; text in any other language passes as it is written, and `has_rules` says so beforehand.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from app.speech.text.characters import has_speech
from app.speech.text.emoji import without_emoji
from app.speech.text.english import reading as english
from app.speech.text.marks import PAUSE, RATE, marked_parts
from app.speech.text.options import TextOptions
from app.speech.text.respelling import respeller

LANGUAGES = frozenset({"en"})
"""Whose numbers and abbreviations are read."""

MONTH_FIRST = frozenset({"", "us", "ca", "ph"})
"""The regions of English in which 3/5 is in March."""

_SPACE_BEFORE = re.compile(r"[ \t]+(?=[,.!?;:…](?:\s|\Z))")
_BARE_COMMA = re.compile(r"[ \t]+[,;](?=[ \t]*[.,;](?:\s|\Z))")  # of "as is known [1], [2]."
_ITEM_IN_ROW = re.compile(r"(?<=[,;:.]) [-•] (?=[^\W\d])")  # of a list within a table's cell
_SPACES = re.compile(r"[ \t]{2,}")
_GLUED = re.compile(r"(?<=[a-z]{2})([.!?…])(?=[A-Z][a-z ])")
_PARAGRAPH = re.compile(r"(?<=[\w%°€£$+])(?<!\band)(?<!\bor)([\"'”’)\]]*)\s*\n\s*")


def has_rules(language_code: str) -> bool:
    """Whether numbers of a language are read."""
    return language_code in LANGUAGES


def spoken(text: str, options: TextOptions, *, tags: Sequence[str] = ()) -> str:
    """A chunk, with its marks and paragraph ends, as words. Remembers what it read last."""
    return _remembered(text, options, frozenset(tags))


def is_plain(text: str, options: TextOptions) -> bool:
    """Whether a chunk takes next to no time, as most do: it is words already."""
    reads = options.normalise and options.language_code == "en"
    return not reads or english.is_plain(text.replace("\n", " "))


def is_silent(text: str) -> bool:
    """Whether a text has nothing to speak: no letter, no digit, no tag, no pause."""
    return not has_speech(text) and PAUSE.search(text) is None


def read_out(text: str, options: TextOptions, tags: frozenset[str] = frozenset()) -> str:
    """What `spoken` says, without remembering."""
    text = text if text.isascii() else without_emoji(RATE.sub("", text), options.emoji)
    if options.normalise:
        text = _parted(text)
    respell = respeller(options.respellings)
    read = "".join(part if fixed else _read(respell(part), options, tags) for part, fixed in marked_parts(text))
    read = _ITEM_IN_ROW.sub(" ", _BARE_COMMA.sub("", read.replace("\n", " ")))
    return _SPACE_BEFORE.sub("", _SPACES.sub(" ", read)).strip().removeprefix(",").lstrip()


def _read(text: str, options: TextOptions, tags: frozenset[str]) -> str:
    if not options.normalise or options.language_code != "en":
        return text
    day_first = options.region not in MONTH_FIRST
    return english.read(_GLUED.sub(r"\1 ", text), tags=tags, urls=options.urls, day_first=day_first)


_remembered = lru_cache(maxsize=256)(read_out)


def _parted(text: str) -> str:
    """A stop where a paragraph ends without one."""
    return _PARAGRAPH.sub(r".\1 ", text) if "\n" in text else text
