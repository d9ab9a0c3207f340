"""Tags of HTML and SSML as they stand in a text: where one ends, what it is called, and what it means to a reader.

A "<" is a tag only where everything up to its ">" has the shape of one; "3 < 4" and `List<String>` are text. What
has come of a tag so far may be a part: `PARTIAL`. What is done about a tag is `app.speech.text.markup`'s matter.
"""

from __future__ import annotations

import re
from typing import NamedTuple

MAX_TAG_CHARS = 2_000


def _names(listed: str) -> frozenset[str]:
    return frozenset(listed.split())


REASONING = _names(
    "think thinking thought thoughts reasoning reflection scratchpad analysis antthinking inner_monologue "
    "chain_of_thought seed:think"
)
"""Elements in which language models think aloud."""

CALLS = _names("tool_call tool_calls tool_response tool_result function_call function_calls")
"""Elements in which they call tools."""

UNSPOKEN = REASONING | CALLS | _names("script style svg template head title iframe object rt rp metadata")
"""Elements whose content is not read."""

BLOCKS = _names(
    "p div section article header footer main aside nav li ul ol dl dt dd h1 h2 h3 h4 h5 h6 table tr thead tbody tfoot "
    "caption blockquote pre figure figcaption form fieldset address hr details summary body html speak"
)
"""Their borders part sentences."""

INLINE = _names(
    "a abbr acronym area audio b base bdi bdo big br button canvas center cite code col colgroup data datalist dd del "
    "dfn dialog em embed font frame frameset hgroup i img input ins kbd label legend link map mark menu meta meter "
    "noscript optgroup option output param picture progress q ruby rb s samp search select slot small source span "
    "strike strong sub sup td textarea th time track tt u var video wbr"
)

SSML = _names("speak break prosody say-as sub p s emphasis voice lang audio mark phoneme w token lexicon desc")
SSML_IGNORED = _names("emphasis voice lang audio mark phoneme w token lexicon")
"""Named in the answer: their text is read, and nothing else of them is done."""

KNOWN = UNSPOKEN | BLOCKS | INLINE | SSML

_BOOLEAN = _names(
    "hidden disabled checked open async defer controls autoplay loop muted required selected nowrap reversed readonly "
    "multiple novalidate compact inert"
)
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9:_-]{0,40}")
_SPACE = re.compile(r"\s*")
_ATTRIBUTE = re.compile(r"[A-Za-z_:@][\w:.@-]*")
_VALUE = re.compile(r"\"[^\"]*\"|“[^“”\"]*[”\"“]|'[^']*'|[^\s\"'=<>`“”]+(?=[\s>/])")
_OPEN_VALUE = re.compile(r"(?:\"[^\"]*|“[^“”\"]*|'[^']*|[^\s\"'=<>`“”]*)\Z")
_HIDDEN_STYLE = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.I)


class Partial:
    """May become a tag."""


PARTIAL = Partial()


class Tag(NamedTuple):
    """One tag; `end` is where the text goes on behind its ">"."""

    name: str
    end: int
    closing: bool = False
    empty: bool = False
    attributes: dict[str, str] = {}  # noqa: RUF012 - never changed

    @property
    def hidden(self) -> bool:
        """Whether a browser would not show the element."""
        shown = self.attributes.get("aria-hidden", "").lower() != "true" and "hidden" not in self.attributes
        return not shown or _HIDDEN_STYLE.search(self.attributes.get("style", "")) is not None


def tag_at(text: str, at: int, *, after_word: bool, known: frozenset[str]) -> Tag | Partial | None:
    """The tag that begins at `text[at]`, a "<"; None: it is text.

    `known` names are those besides HTML's and SSML's; behind a letter (`after_word`) no other name makes a tag.
    """
    at += 1
    closing = text.startswith("/", at)
    at += closing
    if at >= len(text):
        return PARTIAL
    found = _NAME.match(text, at)
    if found is None:
        return None
    if found.end() == len(text):
        return PARTIAL
    name = found[0].lower()
    if text[found.end()] not in " \t\r\n/>":
        return None
    if after_word and not closing and name not in KNOWN and name not in known:
        return None
    return _attributes(text, found.end(), name, closing=closing, longest=at + MAX_TAG_CHARS)


def _attributes(text: str, at: int, name: str, *, closing: bool, longest: int) -> Tag | Partial | None:  # noqa: PLR0911
    attributes: dict[str, str] = {}
    while at <= longest:
        at = _end(_SPACE, text, at)
        if at >= len(text):
            return PARTIAL
        if text[at] == ">":
            return Tag(name, at + 1, closing, empty=False, attributes=attributes)
        if text[at] == "/":
            if at + 1 >= len(text):
                return PARTIAL
            return Tag(name, at + 2, closing, empty=True, attributes=attributes) if text[at + 1] == ">" else None
        found = _ATTRIBUTE.match(text, at)
        if found is None:
            return None
        if found.end() == len(text):
            return PARTIAL
        at = _end(_SPACE, text, found.end())
        if at >= len(text):
            return PARTIAL
        key = found[0].lower()
        if text[at] != "=":
            if key not in _BOOLEAN:
                return None
            attributes[key] = ""
            continue
        at = _end(_SPACE, text, at + 1)
        value = _VALUE.match(text, at)
        if value is None:
            return PARTIAL if _OPEN_VALUE.match(text, at) else None
        attributes[key] = value[0].strip("\"'“”")
        at = value.end()
    return None


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    return found.end() if found else at
