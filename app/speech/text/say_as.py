"""`<say-as interpret-as="…">` of SSML: a text read as what it is said to be. English."""

from __future__ import annotations

import re

from app.speech.text.english.dates import read_dates
from app.speech.text.english.reading import read
from app.speech.text.english.words import MAX_NAMED, cardinal, digits, ordinal, spelt


def said_as(written: str, how: str, ignored: list[str]) -> str:  # noqa: PLR0911 - one a kind
    """`written`, as `how` has it: the kind, and perhaps a format. What is no kind is noted in `ignored`."""
    kind, _, form = how.lower().partition(" ")
    figures = re.sub(r"\D", "", written)
    match kind:
        case "characters" | "spell-out" | "verbatim" | "letters":
            return spelt(written)
        case "digits":
            return digits(figures)
        case "cardinal" | "number" if (
            figures and int(figures) < MAX_NAMED and len(figures) == len(written.strip(" -+").replace(",", ""))
        ):
            return cardinal(int(figures) * (-1 if written.strip().startswith("-") else 1))
        case "ordinal" if figures:
            return ordinal(int(figures))
        case "telephone" | "phone":
            return ", ".join(digits(group) for group in re.findall(r"\d+", written))
        case "date":
            return _date(written, form.strip())
        case (
            "cardinal"
            | "number"
            | "ordinal"
            | "time"
            | "fraction"
            | "unit"
            | "currency"
            | "address"
            | "duration"
            | "expletive"
        ):
            return read(written)
        case _:
            if "say-as" not in ignored:
                ignored.append("say-as")
            return read(written)


def _date(written: str, form: str) -> str:
    parts = re.findall(r"\d+", written)
    order = [part for part in form if part in "ymd"]
    if len(parts) == len(order) == 3 and sorted(order) == ["d", "m", "y"]:
        of = dict(zip(order, parts, strict=True))
        year = of["y"] if len(of["y"]) == 4 else f"20{of['y']}"
        return read_dates(f"{year}-{int(of['m']):02}-{int(of['d']):02}")
    return read(written)
