"""Word timestamps: words with their times, spread over a text's characters, carried from what was spoken to what
was written, and guessed where no recogniser tells.

Times are seconds from the start of the audio they are of. Pure; what hears the audio is `app.hearing.aligner`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from app.speech.audio import Samples, duration_s, speech_runs

_WORD = re.compile(r"\S+")
_EDGES = re.compile(r"^\W+|\W+$")

STOP_WEIGHT = {".": 3, "!": 3, "?": 3, ";": 2, ":": 2, ",": 2, "—": 2, "…": 3}
"""Letters' worth of silence behind a word that ends so, where no pause was found in the audio."""


@dataclass(frozen=True, slots=True)
class TimedWord:
    """A word as it stands in its text, punctuation and all."""

    text: str
    start_s: float
    end_s: float

    def moved(self, by_s: float, *, speed: float = 1.0) -> TimedWord:
        """The word where its audio begins `by_s` later, and is then played at `speed`."""
        return TimedWord(self.text, (self.start_s + by_s) / speed, (self.end_s + by_s) / speed)


@dataclass(frozen=True, slots=True)
class TimedCharacter:
    character: str
    start_s: float
    end_s: float


def words_of(text: str) -> list[str]:
    """The words of a text, as white space parts them."""
    return _WORD.findall(text)


def proportional(text: str, samples: Samples, sample_rate_hz: int) -> tuple[TimedWord, ...]:
    """The words of `text` where they lie by their lengths alone, pauses in the audio left out."""
    words = words_of(text)
    runs = speech_runs(samples, sample_rate_hz, pause_s=0.15) or [(0.0, duration_s(samples, sample_rate_hz))]
    weights = [_weight(word) for word in words]
    speech_s = sum(end - start for start, end in runs)
    share_s = speech_s / max(sum(weights), 1)
    timed: list[TimedWord] = []
    spoken_s = 0.0
    for word, weight in zip(words, weights, strict=True):
        end_s = spoken_s + share_s * weight
        timed.append(TimedWord(word, _within(runs, spoken_s, late=True), _within(runs, end_s, late=False)))
        spoken_s = end_s
    return tuple(timed)


def _weight(word: str) -> int:
    return len(_EDGES.sub("", word)) + 1 + STOP_WEIGHT.get(word[-1], 0)


def _within(runs: Sequence[tuple[float, float]], spoken_s: float, *, late: bool) -> float:
    """Where in the audio so much of its speech has been heard; `late`: behind a pause rather than before it."""
    for start_s, end_s in runs:
        length_s = end_s - start_s
        if spoken_s < length_s - 1e-6 or (not late and spoken_s <= length_s + 1e-6):
            return start_s + spoken_s
        spoken_s -= length_s
    return runs[-1][1]


def carried(spoken: Sequence[TimedWord], written: str) -> tuple[TimedWord, ...]:
    """The words of `written`, with the times of those they were spoken as.

    Equal words have equal times; between them, `$3.50` has the time of `three dollars and fifty cents`.
    """
    words = words_of(written)
    if not spoken:
        return ()
    matcher = SequenceMatcher(None, [_bare(word) for word in words], [_bare(it.text) for it in spoken], autojunk=False)
    timed: list[TimedWord] = []
    for _, first, last, spoken_first, spoken_last in matcher.get_opcodes():
        if first == last:
            continue
        start_s = spoken[spoken_first].start_s if spoken_first < len(spoken) else spoken[-1].end_s
        end_s = spoken[spoken_last - 1].end_s if spoken_last > spoken_first else start_s
        if last - first == spoken_last - spoken_first:
            timed += (
                TimedWord(word, it.start_s, it.end_s)
                for word, it in zip(words[first:last], spoken[spoken_first:spoken_last], strict=True)
            )
        else:
            timed += _spread(words[first:last], start_s, end_s)
    return tuple(timed)


def _bare(word: str) -> str:
    return _EDGES.sub("", word).lower() or word


def _spread(words: Sequence[str], start_s: float, end_s: float) -> Iterator[TimedWord]:
    letters = sum(map(len, words))
    done = 0
    for word in words:
        begin_s = start_s + (end_s - start_s) * done / letters
        done += len(word)
        yield TimedWord(word, begin_s, start_s + (end_s - start_s) * done / letters)


def characters(text: str, words: Iterable[TimedWord], *, start_s: float, end_s: float) -> list[TimedCharacter]:
    """Every character of `text`, whose words these are; what is behind the last word lasts until `end_s`.

    A word's characters share its time; the space before one has the time since the last.
    """
    timed: list[TimedCharacter] = []
    at, done_s = 0, start_s
    for word in words:
        found = text.find(word.text, at)
        if found < 0:
            continue
        begin_s, stop_s = max(word.start_s, done_s), max(word.end_s, done_s)
        timed += _shared(text[at:found], done_s, begin_s)
        timed += _shared(word.text, begin_s, stop_s)
        at, done_s = found + len(word.text), stop_s
    timed += _shared(text[at:], done_s, max(end_s, done_s))
    if timed and timed[-1].end_s < end_s:
        timed[-1] = TimedCharacter(timed[-1].character, timed[-1].start_s, end_s)
    return timed


def _shared(text: str, start_s: float, end_s: float) -> Iterator[TimedCharacter]:
    share_s = (end_s - start_s) / max(len(text), 1)
    for number, character in enumerate(text):
        yield TimedCharacter(character, start_s + number * share_s, start_s + (number + 1) * share_s)
