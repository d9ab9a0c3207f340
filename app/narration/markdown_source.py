"""Markdown made ready for pandoc: what it would take for something else, or would take for ever.

A listing without a language's name gets one: pandoc tells it from indented prose by that alone. Formulas are escaped,
so that they come through as they are written, and are read later.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_ADDRESS = r"(?:<|#|\.{0,2}/|www\.|[a-z][a-z0-9+.-]*:\S|\S+\.(?:html?|md|pdf|png|jpe?g|gif|svg)\b)"
_NOTE = r"\[\^((?:\\.|[^\[\]\\\s]){1,200})\]"
_FENCE = re.compile(r"^ {0,3}(?P<fence>`{3,}|~{3,})(?P<info>[^\n`]*)$", re.M)
_INLINE_CODE = re.compile(r"(`[^`\n]{1,500}`)")
_PUNCTUATION = re.compile(r"[!-/:-@\[-`{-~]")


def prepared(text: str) -> tuple[str, int]:
    """The text as pandoc is to read it, and how many marks of footnotes were left out."""
    text = "".join(part if is_listing else _prose(part) for part, is_listing in _parts(text))
    # "[hero]: Yes" would define a link; only an address does.
    text = re.sub(rf"(?m)^( {{0,3}})\[(?!\^)([^\]\n]{{1,80}})\]:(?![ \t]*{_ADDRESS})", r"\1\\[\2]:", text)
    text, marks = without_note_marks(text)
    before, end, after = text.rpartition("-->")
    text = before + end + after.replace("<!--", r"\<!--")  # pandoc seeks the end of each, 20 s for 40,000 of them
    return text, marks


def without_note_marks(text: str) -> tuple[str, int]:
    """Markdown without the marks of its footnotes, and how many there were.

    Notes are not read aloud; pandoc would put each into the place of every mark of it, also where a note has the mark
    of another: thirty notes with two marks each are a thousand million notes, and two that name each other have no end.
    """
    defined = {match[1].casefold() for match in re.finditer(rf"{_NOTE}:", text)}
    marks = 0

    def unless_defined(match: re.Match[str]) -> str:
        nonlocal marks
        if match[1].casefold() not in defined:
            return match[0]
        marks += 1
        return ""

    return re.sub(rf"{_NOTE}(?!:)", unless_defined, text), marks


def _parts(text: str) -> Iterator[tuple[str, bool]]:
    """Prose and listings in turn, and which it is."""
    opening, at = None, 0
    for fence in _FENCE.finditer(text):
        if opening is None:
            yield text[at : fence.start()], False
            opening, at = fence, fence.start()
        elif fence["fence"].startswith(opening["fence"]) and not fence["info"].strip():
            yield _named(text, opening, fence.end()), True
            opening, at = None, fence.end()
    yield (text[at:], False) if opening is None else (_named(text, opening, len(text)), True)


def _named(text: str, opening: re.Match[str], end: int) -> str:
    name = "" if opening["info"].strip() else "code"
    return opening[0].rstrip() + name + text[opening.end() : end]


def _prose(text: str) -> str:
    if "$" not in text and "\\(" not in text and "\\[" not in text:
        return text
    return "".join(part if part.startswith("`") else _escaped(part) for part in _INLINE_CODE.split(text))


def _escaped(text: str) -> str:
    from app.speech.text.maths import formulas_in

    parts, at = list[str](), 0
    for start, formula in formulas_in(text):
        written = " ".join(text[start : formula.end].split())
        parts += (text[at:start], _PUNCTUATION.sub(r"\\\g<0>", written))
        at = formula.end
    return "".join((*parts, text[at:]))
