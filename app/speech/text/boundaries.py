"""Where text may be cut well: after sentences, paragraphs and clauses, and never within a number.

The rules follow Pipecat (a sentence ends only once the next non-space character is there: "$29." against "$29. Next").
They are of English and of scripts with stops of their own; they know no clock and no lengths.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum


class Cut(StrEnum):
    """Why a chunk ends where it does."""

    SENTENCE = "sentence"
    PARAGRAPH = "paragraph"
    CLAUSE = "clause"
    WORDS = "words"  # enough words for a start
    IDLE = "idle"  # the text stopped coming
    PAUSE = "pause"  # a mark for silence, which is a chunk of its own
    LENGTH = "length"  # no better place within the longest chunk
    FLUSH = "flush"
    END = "end"


@dataclass(frozen=True)
class Chunk:
    """One piece to speak: `text` is characters [start, end) of the cleaned stream, its paragraph marks made spaces.

    `source` has them, and one at its end where a paragraph or the text ends with it: what `spoken` is given.
    """

    text: str
    start: int
    end: int
    cut: Cut
    source: str = field(default="", compare=False)


# A run of stops with the quotes and brackets that close after it. Possessive: a run still growing is no match.
_CLOSING = "\"'”’)]}»*_"
_CLOSERS = rf"[{re.escape(_CLOSING)}]*+"
_WIDE_CLOSERS = rf"[{re.escape(_CLOSING)}」』）】》〉]*+"
_BOUNDARY = re.compile(
    rf"(?P<stop>[.!?…]++{_CLOSERS}(?=\s))"
    r"|(?P<glued>(?<=[a-z]{2})[.!?…](?=[A-Z][a-z\s]))"  # "First one.Second one"
    rf"|(?P<wide_stop>[。！？｡।॥؟۔]++{_WIDE_CLOSERS}(?=[\s\S]))"
    rf"|(?P<clause>[,;:،؛]++{_CLOSERS}(?=\s)|[，、；：]++{_WIDE_CLOSERS}(?=[\s\S])|\s[-–—]++(?=\s)|—++(?=[^\s—]))"
    r"|(?P<paragraph>\n)"
)
# The end of text gone idle that needs no following space to be whole; "3." and "1," may be half a number.
WHOLE_END = re.compile(rf"(?:[!?…;。！？।؟۔]|(?<!\d)[.,:]){_CLOSERS}\Z")
CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
_NUMBER_END = re.compile(r"\d[,.:;/–—%()-]?\)?\s?[–—-]?\Z")
_AFTER_NUMBER = re.compile(
    r"[(%°€£$+*/=×–—-]|(?i:million|billion|trillion|thousand|hundred|percent|[ap]\.?m\b|[a-z]{1,3}\b"
    r"|degrees?|dollars?|euros?|"
    r"pounds?|jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)"
)
_BEFORE_NUMBER = re.compile(
    r"[$€£¥#+(–—-]\Z|(?<![A-Za-z])(?i:no|nos|p|pp|vol|ch|fig|chapter|january|february|march|april|may|june|july|august|"
    r"september|october|november|december|jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec)\.?\Z"
)
_OPENERS = "\"'“‘«([{*_—-"


def _words(listed: str) -> frozenset[str]:
    return frozenset(listed.split())


# Abbreviations, without their last stop. A name or a word always follows those of the first set.
_NEVER_ENDS = _words(
    "mr mrs ms mx dr prof st ste mt ft gen col sgt capt cpl lt cmdr adm maj rev hon fr sen rep gov pres messrs mme "
    "mlle vs v cf viz approx est dept univ assn bros ave blvd rd esp incl ca"
)
_BEFORE_NUMBERS = _words(
    "no nos fig figs vol vols p pp pg ch chap sec art eq ver tel ext op par para jan feb mar apr jun jul aug sep sept "
    "oct nov dec"
)
_MAY_END = _words("etc inc ltd co corp llc jr sr esq ph.d m.d b.a m.a a.m p.m al")
_DOTTED_LETTERS = re.compile(r"(?:[^\W\d_]\.)+[^\W\d_]")


def boundaries(text: str) -> Iterator[tuple[int, Cut]]:
    """Every (end, kind) at which `text` may be cut well, in order; kind is SENTENCE, PARAGRAPH or CLAUSE.

    A place counts only once the character after it (after its space, if it has one) is in `text`.
    """
    sentence_start = 0
    for match in _BOUNDARY.finditer(text):
        if match["stop"]:
            cut = _judge_stop(text, sentence_start, match)
        elif match["wide_stop"] or match["glued"]:
            cut = Cut.SENTENCE
        else:
            cut = Cut.PARAGRAPH if match["paragraph"] else Cut.CLAUSE
        if cut is Cut.CLAUSE and parts_number(text, match.end()):
            continue
        if cut in (Cut.SENTENCE, Cut.PARAGRAPH):
            sentence_start = match.end()
        if cut:
            yield (match.start() if cut is Cut.PARAGRAPH else match.end()), cut


def parts_number(text: str, at: int) -> bool:
    """Whether a cut at `at` would part a number, a date or a sum, or a number from its unit or currency."""
    before, after = text[max(0, at - 24) : at].rstrip(), text[at : at + 24].lstrip()
    if not before or not after:
        return False
    if before[-1].isdigit() or (before[-1] in ",.:;/–—-%()" and _NUMBER_END.search(before)):
        return after[0].isdigit() or (before[-1].isdigit() and _AFTER_NUMBER.match(after) is not None)
    return _BEFORE_NUMBER.search(before) is not None and after[0].isdigit()


def _judge_stop(text: str, sentence_start: int, match: re.Match[str]) -> Cut | None:
    """What the stops in `match` end, whitespace following them: a sentence, an ellipsis's clause, or nothing."""
    stops = match[0].rstrip(_CLOSING)
    quoted = len(stops) < len(match[0])
    after = text[match.end() + 1 : match.end() + 2]
    if text[match.end()] == "\n":
        return Cut.SENTENCE
    if stops == "." or stops[-1] in "!?":
        if quoted and after.islower():  # "Really?" he said
            return None
        abbreviates = stops == "." and _abbreviates(text[sentence_start : match.start()], after)
        return None if abbreviates else Cut.SENTENCE
    return Cut.CLAUSE if after.islower() else Cut.SENTENCE


def _abbreviates(before: str, after: str) -> bool:
    """Whether the full stop after `before` (the sentence so far) is no end, when `after` is the next character."""
    words = before.split()
    word = words[-1].lstrip(_OPENERS) if words else ""
    folded = word.lower()
    if folded in _NEVER_ENDS:
        return True
    if folded in _BEFORE_NUMBERS:
        return after.isdigit()
    if folded in _MAY_END:
        return not after.isupper()
    if _DOTTED_LETTERS.fullmatch(word):
        return True
    if len(word) == 1 and word.isupper():
        pronoun = word == "I" and len(words) > 1 and words[-2][0].islower()
        return not pronoun
    enumerates = len(words) < 2 or words[-2][-1] in ":;"  # "1. First", "the plan: 1. First"
    return enumerates and len(word) <= 3 and word.isdigit()
