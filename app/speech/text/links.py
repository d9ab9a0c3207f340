"""What stands in brackets: where it ends, and what cites a source."""

from __future__ import annotations

import re

MAX_LINK_CHARS = 400
MAX_NESTED_LINKS = 2

CITATION = re.compile(r"【\d{1,4}[†:‡][^】\n]{0,100}】")
CITED = re.compile(r"[1-9]\d{0,2}(?:\s?[,;–-]\s?[1-9]\d{0,2})*")
"""Within brackets: the numbers of sources, as in [1] and [2, 4–7]; an index may be 0."""
CITATION_PART = re.compile(r"【(?:\d{0,4}|\d{1,4}[†:‡][^】\n]{0,100})\Z")
_BRACKETS = re.compile(r"\\.|[\[\]]|\n[ \t\r]*\n", re.S)


def closing_bracket(text: str, begin: int) -> int | None:
    """The end of what the bracket at `begin` opens; 0: it has none within this paragraph or near; None: not yet."""
    depth = 0
    for found in _BRACKETS.finditer(text, begin, begin + MAX_LINK_CHARS):
        if found[0] == "[":
            depth += 1
        elif found[0] == "]":
            depth -= 1
        elif found[0].startswith("\n"):
            return 0
        if not depth:
            return found.end()
        if depth > MAX_NESTED_LINKS + 1:
            return 0
    return None
