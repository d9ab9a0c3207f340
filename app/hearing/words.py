"""The words of a text, and how many of them were heard: what recognition is measured by.

Two texts are compared as they are spoken: `It's 7:30, Dr. 3rd` and `its seven thirty dr third` are nearly one. Numbers
are read as English words. Nothing here knows audio or recognisers.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

_TAG = re.compile(r"<[a-z]+>")
_APOSTROPHES = str.maketrans({"\N{RIGHT SINGLE QUOTATION MARK}": "'", "\N{MODIFIER LETTER APOSTROPHE}": "'"})
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
_NUMBER = re.compile(
    r"(?P<money>[$£€])?(?P<whole>\d{1,3}(?:,\d{3})+|\d+)(?:\.(?P<decimals>\d+)|:(?P<minutes>[0-5]\d)(?!\d))?"
    r"(?P<ordinal>st|nd|rd|th)?(?P<percent> ?%)?"
)
_SMALL = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_SCALES = ((10**9, "billion"), (10**6, "million"), (1000, "thousand"), (100, "hundred"))
_ORDINALS = {
    "one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth", "nine": "ninth",
    "twelve": "twelfth",
}  # fmt: skip
_MONEY = {"$": "dollars", "£": "pounds", "€": "euros"}
_MOST_DIGITS = 6
"""A longer number without commas is a telephone's or an account's: it is read digit by digit."""


def words_of(text: str) -> list[str]:
    """The words as they are spoken: lower case, without punctuation and emotion tags, numbers as English words."""
    plain = unicodedata.normalize("NFKC", _TAG.sub(" ", text.lower())).translate(_APOSTROPHES)
    return _WORD.findall(_NUMBER.sub(_spoken, plain))


def word_error_rate(pairs: Iterable[tuple[str, str]]) -> float | None:
    """Substituted, missing and added words over all words of (text, heard) pairs; None where no text has words.

    It exceeds 1 where more is heard than was to be said.
    """
    wrong = total = 0
    for text, heard in pairs:
        wanted = words_of(text)
        total += len(wanted)
        wrong += edits(wanted, words_of(heard))
    return wrong / total if total else None


def edits(wanted: Sequence[str], heard: Sequence[str]) -> int:
    """Levenshtein's distance, of words or characters."""
    row = list(range(len(heard) + 1))
    for number, item in enumerate(wanted, start=1):
        diagonal, row[0] = row[0], number
        for place, other in enumerate(heard, start=1):
            diagonal, row[place] = row[place], min(row[place] + 1, row[place - 1] + 1, diagonal + (item != other))
    return row[-1]


def word_agreement(given: str, heard: str) -> float:
    """How many of the words of both are the same in the same order, 0 to 1 (difflib's ratio)."""
    return difflib.SequenceMatcher(None, words_of(given), words_of(heard), autojunk=False).ratio()


def letter_agreement(given: str, heard: str) -> float:
    """How many of the letters of both are the same, 0 to 1: what was misheard is often spelt alike.

    Of right texts Moonshine got 0.9 on average, at least 0.7 (flite, espeak-ng; one in 42 was not understood at all:
    0.3), and 0.4 to 0.9 of words without sense; of other texts at most 0.33.
    """
    wanted, got = "".join(words_of(given)), "".join(words_of(heard))
    return 1.0 - edits(wanted, got) / max(len(wanted), len(got), 1)


def digits_of(text: str) -> str:
    """The digits that a text says one by one, as digits: `My number is 12 three, oh` -> `1230`."""
    words = _WORD.findall(re.sub(r"(\d)", r" \1 ", text.lower()))
    names = {name: str(digit) for digit, name in enumerate(_SMALL[:10])} | {"oh": "0", "o": "0"}
    return "".join(word if word.isdecimal() else names.get(word, "") for word in words)


def _spoken(match: re.Match[str]) -> str:
    whole = match["whole"].replace(",", "")
    if match["minutes"]:
        words = [*_cardinal(int(whole)), *_minutes(int(match["minutes"]))]
    elif match["decimals"] and match["money"]:
        words = [*_cardinal(int(whole)), _MONEY[match["money"]], *_cardinal(int(match["decimals"]))]
    elif match["decimals"]:
        words = [*_cardinal(int(whole)), "point", *(_SMALL[int(digit)] for digit in match["decimals"])]
    elif (len(whole) > 1 and whole[0] == "0") or (len(whole) > _MOST_DIGITS and "," not in match["whole"]):
        words = [_SMALL[int(digit)] for digit in whole]
    elif _is_year(match, whole):
        century, rest = divmod(int(whole), 100)
        words = [*_cardinal(century), *(_year_end(rest))]
    else:
        words = [*_cardinal(int(whole))]
        if match["ordinal"]:
            words[-1] = _ordinal(words[-1])
        if match["money"]:
            words.append(_MONEY[match["money"]])
    if match["percent"]:
        words.append("percent")
    return f" {' '.join(words)} "


def _is_year(match: re.Match[str], whole: str) -> bool:
    """`1984` is read as a year, `2005` and `1,984` are not."""
    bare = len(whole) == 4 and "," not in match["whole"] and not (match["money"] or match["ordinal"])
    return bare and (1100 <= int(whole) < 2000 or 2010 <= int(whole) < 2100)


def _year_end(rest: int) -> Iterator[str]:
    if rest == 0:
        yield "hundred"
    elif rest < 10:
        yield from ("oh", _SMALL[rest])
    else:
        yield from _cardinal(rest)


def _minutes(minutes: int) -> Iterator[str]:
    if 0 < minutes < 10:
        yield "oh"
    if minutes:
        yield from _cardinal(minutes)


def _cardinal(number: int) -> Iterator[str]:
    """`1205` -> one thousand two hundred five, without `and`."""
    for size, name in _SCALES:
        if number >= size:
            yield from (*_cardinal(number // size), name)
            number %= size
            if not number:
                return
    if number < 20:
        yield _SMALL[number]
        return
    yield _TENS[number // 10 - 2]
    if number % 10:
        yield _SMALL[number % 10]


def _ordinal(word: str) -> str:
    return _ORDINALS.get(word) or (f"{word[:-1]}ieth" if word.endswith("y") else f"{word}th")
