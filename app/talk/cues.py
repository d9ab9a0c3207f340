"""What a person's words say of whose turn it is: whether a sentence reads finished, and whether it only says go on.

English; of another language everything reads unfinished unless it ends like a sentence. It knows no audio and no time.
"""

from __future__ import annotations

import re

_WORD = re.compile(r"[^\W_]+(?:['\N{RIGHT SINGLE QUOTATION MARK}][^\W_]+)*")
_ENDS = (".", "?", "!", "\N{HORIZONTAL ELLIPSIS}")


def words(text: str) -> list[str]:
    """The words of a text in lower case."""
    return _WORD.findall(text.lower())


_HANGING = frozenset(
    words(
        "a an the and or but so because if when while with without to of for from in on at by about into than that "
        "which who my your his her its our their this these those i we they he she is are was were um "
        "uh er like then as"
    )
)
"""A sentence seldom ends with these, whatever mark a recogniser puts behind them."""

_GO_ON = frozenset(
    words("mm mhm hm hmm m h uh huh ah oh wow yeah yes yep ok okay right sure really good great nice cool i see you")
)
"""Said while another speaks, these ask for no turn. `m`, `h` and `you` are what the recogniser makes of a hum."""

MOST_GO_ON_WORDS = 4


def reads_finished(text: str) -> bool:
    """Whether a text ends as a whole sentence does. Recognisers put a full stop behind half ones, too."""
    said = words(text)
    return bool(said) and text.rstrip().endswith(_ENDS) and said[-1] not in _HANGING


def says_go_on(text: str) -> bool:
    """Whether words said over an answer ask for nothing: `mm-hm`, `yeah, right`, or no word at all."""
    said = words(text)
    return len(said) <= MOST_GO_ON_WORDS and all(word in _GO_ON for word in said)
