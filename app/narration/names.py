"""The names in a text, which a voice may say otherwise than its readers do: what to hear before a book is read.

It goes by capitals alone, as English, French or Spanish write names, and knows no dictionary; a language that
capitalises every noun gets its nouns.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

LEAST = 2
"""A name that comes once is heard once."""

READ_CHARS = 1_000_000
"""Names that come later than in the first four hundred pages come seldom."""

_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_INSIDE = re.compile(r"(?<=[\w,;] )[^\W\d_]+(?:['’-][^\W\d_]+)*")
"""Words that do not begin a sentence."""

_POSSESSIVE = re.compile(r"['’]s$")

_FAMILIAR = frozenset([
    "monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday",
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
    "december", "mr", "mrs", "ms", "dr", "god", "i'm", "i'll", "i've", "i'd", "english", "french", "german", "spanish",
])  # fmt: skip


def names_in(texts: Iterable[str], *, most: int) -> list[tuple[str, int]]:
    """The most frequent names and abbreviations, with how often they come: `[("Nguyen", 41), ("NATO", 7)]`."""
    seen = Counter[str]()
    within, ordinary = set[str](), set[str]()
    read = 0
    for text in texts:
        if read > READ_CHARS:
            break
        read += len(text)
        for word in _WORD.findall(text):
            bare = _POSSESSIVE.sub("", word)
            if bare[0].isupper():
                seen[bare] += 1
            else:
                ordinary.add(bare)
        within.update(_POSSESSIVE.sub("", word) for word in _INSIDE.findall(text) if word[0].isupper())
    names = ((word, count) for word, count in seen.most_common() if count >= LEAST and word in within)
    found = [
        (word, count)
        for word, count in names
        if len(word) > 1 and word.lower() not in ordinary and word.lower().replace("’", "'") not in _FAMILIAR
    ]
    return found[:most]
