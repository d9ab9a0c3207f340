"""Numbers by name: `cardinal(21)` is "twenty one". No hyphens, no "and": voices read those as they please."""

from __future__ import annotations


def listed(words: str) -> tuple[str, ...]:
    """The words of a list that is written in one string."""
    return tuple(words.split())


_ONES = listed(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
)
_TENS = listed("zero ten twenty thirty forty fifty sixty seventy eighty ninety")
_SCALES = ("", "thousand", "million", "billion", "trillion", "quadrillion")
FIRST_WORDS = (*_ONES, *_TENS[2:], "minus")
"""With which a number begins."""
_IRREGULAR = {
    "one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth", "nine": "ninth",
    "twelve": "twelfth",
}  # fmt: skip
MAX_NAMED = 10**18
"""From here on digits are read one by one."""


def cardinal(number: int) -> str:
    """A whole number; the digits of one of MAX_NAMED or more."""
    if number < 0:
        return f"minus {cardinal(-number)}"
    if number < 20:
        return _ONES[number]
    if number < 100:
        return _joined(_TENS[number // 10], number % 10)
    if number < 1000:
        return _joined(f"{_ONES[number // 100]} hundred", number % 100)
    if number >= MAX_NAMED:
        return digits(str(number))
    scale = (len(str(number)) - 1) // 3
    high, low = divmod(number, 1000**scale)
    return _joined(f"{cardinal(high)} {_SCALES[scale]}", low)


def ordinal(number: int) -> str:
    """`ordinal(21)` is "twenty first"."""
    head, _, last = cardinal(number).rpartition(" ")
    regular = f"{last[:-1]}ieth" if last.endswith("y") else f"{last}th"
    last = _IRREGULAR.get(last, regular)
    return f"{head} {last}".strip()


def year(number: int) -> str:
    """As years are read: 1987, 1905, 1900, 2000, 2007, 2024."""
    high, low = divmod(number, 100)
    if number < 1000 or number > 9999 or (high % 10 == 0 and low < 10):
        return cardinal(number)
    if not low:
        return f"{cardinal(high)} hundred"
    return f"{cardinal(high)} {'oh ' if low < 10 else ''}{cardinal(low)}"


def digits(figures: str) -> str:
    """Each digit by its name; other characters are left out."""
    return " ".join(_ONES[int(figure)] for figure in figures if figure.isascii() and figure.isdigit())


def spelt(letters: str) -> str:
    """Letters and digits one by one: "B", "two", "B"."""
    return " ".join(_ONES[int(c)] if c.isascii() and c.isdigit() else c.upper() for c in letters if c.isalnum())


def number(figures: str) -> str:
    """A number as it is written: "1,234", "-5", "3.14", ".5", "007"."""
    negative = figures[:1] in "-−–" and bool(figures[:1])
    whole, point, fraction = (
        figures.lstrip("-−–+").replace(",", "").replace(" ", "").replace("\u202f", "").partition(".")
    )
    named = digits(whole) if (len(whole) > 1 and whole[0] == "0") or len(whole) > 18 else cardinal(int(whole or 0))
    if point and fraction:
        named = f"{named} point {digits(fraction)}"
    return f"minus {named}" if negative else named


def count(figures: str, one: str, many: str) -> str:
    """A number of things: "1" one, "2" many."""
    return f"{number(figures)} {one if figures in ('1', '-1', '−1') else many}"


def _joined(head: str, rest: int) -> str:
    return f"{head} {cardinal(rest)}" if rest else head
