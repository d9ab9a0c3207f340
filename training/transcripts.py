"""Compares transcripts with recognised speech: distributes them among the clips of a recording, and detects mismatches.

Pure functions over texts; the recognisers are in `app.hearing`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from app.hearing.ear import Transcriber
from app.hearing.words import edits, letter_agreement, word_agreement, words_of

COARSE_FIT = 0.6
"""The letters of a clip that must agree where a coarse recogniser heard it; see `letter_agreement`."""

STRANGE = 0.36
"""Fewer letters agree by chance alone."""

SHOWN_WORDS = 8
_LONGEST_GAP = 40
_TAG = re.compile(r"<[a-z]+>")


def spoken_chars(text: str) -> int:
    """About how many characters are spoken: a digit reads like four letters (`seven`), a tag sounds like eight."""
    words = _TAG.sub(" ", text)
    return max(len(words) + 3 * sum(char.isdigit() for char in words) + 8 * len(_TAG.findall(text)), 1)


def fits(given: str, heard: str, transcriber: Transcriber, min_word_agreement: float) -> bool:
    """Whether what a clip is to say is what the transcriber heard in it."""
    if word_agreement(given, heard) >= min_word_agreement:
        return True
    return transcriber.coarse and letter_agreement(given, heard) >= COARSE_FIT


def parting(given: str, heard: str) -> str:
    """Where two texts part most: `“the cat sat” in the transcript, “a dog ran” in the recording`."""
    wanted, got = words_of(given), words_of(heard)
    matcher = difflib.SequenceMatcher(None, wanted, got, autojunk=False)
    unlike = [code for code in matcher.get_opcodes() if code[0] != "equal"]
    if not unlike:
        return "no word differs"
    _, start, stop, heard_start, heard_stop = max(unlike, key=lambda code: code[2] - code[1] + code[4] - code[3])
    return f"{_shown(wanted[start:stop])} in the transcript, {_shown(got[heard_start:heard_stop])} in the recording"


def _shown(words: Sequence[str]) -> str:
    if not words:
        return "nothing"
    more = " …" if len(words) > SHOWN_WORDS else ""
    return f"“{' '.join(words[:SHOWN_WORDS])}{more}”"


def shared_out(given: str, heard: Sequence[str]) -> list[str]:
    """A transcript of a whole recording, cut where its segments, each `heard` separately, end.

    Each word of `given` goes, with its punctuation, to the segment where it was heard; words that were misheard at the
    end of a segment, or at the beginning of the next, to where their letters fit better. The parts joined are `given`
    again, but for its white space.
    """
    pieces = given.split()
    owners, misheard = _matched(pieces, heard)
    parts: list[list[str]] = [[] for _ in heard]
    place = owner = 0
    while place < len(pieces):
        if (found := owners.get(place)) is not None:
            owner = max(owner, found)
            parts[owner].append(pieces[place])
            place += 1
            continue
        end = next((number for number in range(place, len(pieces)) if number in owners), len(pieces))
        last = max(owners[end], owner) if end < len(pieces) else len(heard) - 1
        _share_gap(pieces[place:end], misheard, owner, last, parts)
        place, owner = end, last
    return [" ".join(part) for part in parts]


def _matched(pieces: Sequence[str], heard: Sequence[str]) -> tuple[dict[int, int], list[str]]:
    """(the segment of each piece that was recognised, the letters of each segment that were not)."""
    segment_of = [segment for segment, text in enumerate(heard) for _ in words_of(text)]
    heard_words = [word for text in heard for word in words_of(text)]
    words = [(word, place) for place, text in enumerate(pieces) for word in words_of(text)]
    matcher = difflib.SequenceMatcher(None, [word for word, _ in words], heard_words, autojunk=False)
    owners: dict[int, int] = {}
    recognised: set[int] = set()
    for block in matcher.get_matching_blocks():
        for offset in range(block.size):
            owners.setdefault(words[block.a + offset][1], segment_of[block.b + offset])
            recognised.add(block.b + offset)
    misheard = [""] * len(heard)
    for number, word in enumerate(heard_words):
        if number not in recognised:
            misheard[segment_of[number]] += word
    return owners, misheard


def _share_gap(gap: Sequence[str], misheard: Sequence[str], first: int, last: int, parts: list[list[str]]) -> None:
    """Pieces that were not recognised, to the segments from `first` to `last`, in order."""
    rest = list(gap)
    for segment in range(first, last):
        if len(rest) > _LONGEST_GAP:
            break
        letters = ["".join(words_of(piece)) for piece in rest]
        following = "".join(misheard[segment + 1 : last + 1])
        costs = [
            edits("".join(letters[:count]), misheard[segment]) + edits("".join(letters[count:]), following)
            for count in range(len(rest) + 1)
        ]
        kept = max(count for count, cost in enumerate(costs) if cost == min(costs))
        parts[segment] += rest[:kept]
        rest = rest[kept:]
        first = segment + 1
    parts[first] += rest
