"""Finds words in audio, one text after the other; run by `app.hearing.aligner`, never imported into a server.

    {"words": ["Hello,", "you."], "bytes": 32000} and so many bytes of PCM s16le, 16 kHz  ->  [[0.1, 0.4], [0.5, 0.9]]

The answer has the start and the end of each word in seconds, or is `null` where they could not be found. It ends with
its standard input.
"""

from __future__ import annotations

import json
import re
import sys
from typing import BinaryIO

FRAME_S = 0.01

BEAMS = {"beam": 1e-250, "wbeam": 1e-200, "pbeam": 1e-250}
"""Next to nothing is given up: there is one sentence to follow, and a voice may be odd. By pocketsphinx's own, and by
its search for a better path, 3 sentences of 14 by the stand-in were lost."""

MAX_ADDED_WORDS = 10_000
"""To the dictionary, which forgets none: then a new recogniser takes its place."""
_LETTERS = re.compile(r"[^a-z']+")

SPELT = {
    "a": "AE", "b": "B", "c": "K", "d": "D", "e": "EH", "f": "F", "g": "G", "h": "HH", "i": "IH", "j": "JH", "k": "K",
    "l": "L", "m": "M", "n": "N", "o": "AA", "p": "P", "q": "K", "r": "R", "s": "S", "t": "T", "u": "AH", "v": "V",
    "w": "W", "x": "K S", "y": "IY", "z": "Z",
}  # fmt: skip
"""A phone for each letter of a word that is in no dictionary: to find where a name lies, roughly right is enough."""

PAIRS = {
    "sh": "SH", "ch": "CH", "th": "TH", "ph": "F", "ck": "K", "ng": "NG", "ee": "IY", "oo": "UW", "ou": "AW",
    "ow": "OW", "ai": "EY", "ay": "EY", "ea": "IY", "oi": "OY", "oy": "OY", "er": "ER", "ar": "AA R", "or": "AO R",
    "qu": "K W", "wh": "W", "gh": "G", "zh": "ZH", "ur": "ER", "ir": "ER", "au": "AO", "aw": "AO", "ie": "IY",
}  # fmt: skip


class Finder:
    """A loaded recogniser, bound to one text at a time."""

    def __init__(self) -> None:
        from pocketsphinx import Decoder

        self._decoder = Decoder(lm=None, loglevel="FATAL", bestpath=False, **BEAMS)
        self._added = 0

    @property
    def is_worn(self) -> bool:
        """Whether its dictionary has grown so much that another should take its place."""
        return self._added > MAX_ADDED_WORDS

    def find(self, words: list[str], pcm16: bytes) -> list[tuple[float, float]] | None:
        """Start and end of each word; one without a letter lies at the end of the word before it."""
        parts = [self._known(word) for word in words]
        flat = [part for of_word in parts for part in of_word]
        if not flat or not pcm16:
            return None
        self._decoder.set_align_text(" ".join(flat))
        self._decoder.start_utt()
        self._decoder.process_raw(pcm16, full_utt=True)
        self._decoder.end_utt()
        segments = self._decoder.seg()
        found = [seg for seg in segments or () if not seg.word.startswith(("<", "["))]
        if [seg.word.partition("(")[0] for seg in found] != flat:
            return None
        times, at, done_s = [], 0, 0.0
        for of_word in parts:
            if of_word:
                first, last = found[at], found[at + len(of_word) - 1]
                times.append((round(first.start_frame * FRAME_S, 2), round((last.end_frame + 1) * FRAME_S, 2)))
                at, done_s = at + len(of_word), times[-1][1]
            else:
                times.append((done_s, done_s))
        return times

    def _known(self, word: str) -> list[str]:
        """What the dictionary knows of a word, in parts: `so-called` has two."""
        plain = word.lower().replace("\u2019", "'")
        parts = [part.strip("'") for part in _LETTERS.split(plain)]
        return [self._entered(part) for part in parts if part]

    def _entered(self, part: str) -> str:
        if self._decoder.lookup_word(part) is None:
            self._decoder.add_word(part, guessed(part), True)
            self._added += 1
        return part


def guessed(word: str) -> str:
    """Phones for a word of letters and apostrophes, as it looks."""
    phones, at = [], 0
    while at < len(word):
        pair = PAIRS.get(word[at : at + 2])
        one = SPELT.get(word[at])
        if phone := pair or one:
            phones.append(phone)
        at += 2 if pair else 1
    return " ".join(phones) or "AH"


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer until there is nothing more to read."""
    finder = Finder()
    while line := requests.readline():
        request = json.loads(line)
        pcm16 = requests.read(request["bytes"])
        try:
            found = finder.find(request["words"], pcm16)
        except RuntimeError:  # the recogniser has no better word for what it cannot do
            found = None
        answers.write(json.dumps(found).encode() + b"\n")
        answers.flush()
        if finder.is_worn:
            finder = Finder()


if __name__ == "__main__":
    serve(sys.stdin.buffer, sys.stdout.buffer)
