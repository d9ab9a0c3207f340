"""A pronunciation dictionary, applied: whole words, in any case, and what to say instead.

Where the words come from, a narration, a key or a voice, is not known here; `merged` says which goes first.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated

from pydantic import Field

from app.speech.text.characters import joins_previous

WrittenWord = Annotated[str, Field(min_length=1, max_length=100)]
Respelling = Annotated[str, Field(max_length=200)]

_FOLDED = {"’": "'", "ʼ": "'"}


def folded(written: str) -> str:
    """Text in one case and with one apostrophe, character for character; what has no single small letter stays."""
    return "".join(_FOLDED.get(char) or (small if len(small := char.casefold()) == 1 else char) for char in written)


def check_distinct(words: Mapping[str, str]) -> None:
    """Raise ValueError for a word that is there twice, in another case."""
    seen: dict[str, str] = {}
    for written in words:
        if (other := seen.setdefault(folded(unicodedata.normalize("NFC", written)), written)) != written:
            raise ValueError(f"{other!r} and {written!r} are the same word in any case; keep one of them")


def merged(*dictionaries: Mapping[str, str]) -> dict[str, str]:
    """One dictionary of several; a word of a later one, in any case, goes before that of an earlier."""
    together: dict[str, tuple[str, str]] = {}
    for dictionary in dictionaries:
        for written, said in dictionary.items():
            together[folded(unicodedata.normalize("NFC", written))] = (written, said)
    return dict(together.values())


class Respellings:
    """Says words otherwise: `Respellings({"GIF": "jif"})("A gif.")` is "A jif.".

    Words that a text lacks cost it nothing, and a text that lacks them all is returned as it is.
    """

    def __init__(self, replacements: Mapping[str, str]) -> None:
        composed = {unicodedata.normalize("NFC", written): spoken for written, spoken in replacements.items()}
        self._spoken = {folded(written): spoken for written, spoken in composed.items()}
        self._by_word: dict[str, list[str]] = {}
        for written in self._spoken:
            first = re.search(r"\w+", written)
            self._by_word.setdefault(first[0] if first else "", []).append(written)

    def __call__(self, sentence: str) -> str:
        if not self._spoken:
            return sentence
        text = folded(sentence)
        words = {"", *re.findall(r"\w+", text)}
        present = sorted((w for word in words & self._by_word.keys() for w in self._by_word[word]), key=len)
        if not present:
            return sentence
        pattern = "|".join(("<[a-z_-]+>", *map(_whole, reversed(present))))  # no tag is taken for a word
        parts, done = list[str](), 0
        for found in re.finditer(pattern, text):
            if found[0] in self._spoken and not _goes_on(text, *found.span()):
                parts += (sentence[done : found.start()], self._spoken[found[0]])
                done = found.end()
        return "".join((*parts, sentence[done:]))


@lru_cache(maxsize=64)
def respeller(words: tuple[tuple[str, str], ...]) -> Respellings:
    """The dictionary of these pairs, made once for many chunks."""
    return Respellings(dict(words))


def _whole(written: str) -> str:
    """A pattern of it where no letter goes on; a sign as "&" may touch words."""
    before, after = (r"(?<!\w)" if written[0].isalnum() else ""), (r"(?!\w)" if written[-1].isalnum() else "")
    return before + re.escape(written) + after


def _goes_on(text: str, start: int, end: int) -> bool:
    """Whether a mark makes part of a longer word of it: राम in रामी; `re` takes no mark for a part of a word."""
    if end < len(text) and joins_previous(text[end]):
        return True
    return start > 0 and text[start].isalnum() and joins_previous(text[start - 1])
