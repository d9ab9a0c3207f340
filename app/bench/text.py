"""`carillon bench text`: text normalisation over a corpus of cases: accuracy and time.

A case is a line of JSON: `text` or `pieces`, perhaps an `option` object, and what is expected: `spoken` (compared by
its words, in small letters), `exact` (by its signs, too), `spoken_has`, `spoken_not`, `matches` (patterns, with signs),
`keeps` (a character), `sentences`, `silence_ms`; in `spoken` and `spoken_has` a list in place of a text holds readings
that are as good as each other. `whole` says that a case holds only for a text that comes at once. Two ways are
compared: our rules as sessions use them, and the grammars that books in other languages are read with.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from statistics import median
from typing import Any

from app.narration.normaliser import Normaliser
from app.speech.text import Cut, TextSplitter, boundaries, marks
from app.speech.text.markup import Markup
from app.speech.text.options import TextOptions, options_of
from app.speech.text.spoken import read_out, spoken
from app.speech.text.thoughts import behind_thought

SHIPPED = files("app.bench").joinpath("cases/text.jsonl")
ROUNDS = 5


@dataclass(frozen=True)
class Heard:
    """What a text became: the words of its chunks, one after the other, and its silences."""

    words: str
    silence_ms: float
    chunks: tuple[str, ...]


@dataclass
class Score:
    """The score of one reader: the ids of failed cases with its output, and the time of each case."""

    name: str
    wrong: dict[str, str] = field(default_factory=dict)
    cases: int = 0
    ms: list[float] = field(default_factory=list)

    @property
    def right(self) -> float:
        """The share of cases that are as expected."""
        return 1 - len(self.wrong) / self.cases if self.cases else 0.0


def load_cases(path: Path | None = None) -> list[dict[str, Any]]:
    """The cases of a file, or those that are shipped; only such as have a text."""
    text = path.read_text("utf-8") if path else SHIPPED.read_text("utf-8")
    cases = [json.loads(line) for line in text.split("\n") if line.strip()]
    return [case for case in cases if "text" in case or "pieces" in case]


def options_for(case: dict[str, Any]) -> TextOptions:
    """What a case chooses."""
    return options_of(case.get("option", {}))


def heard(pieces: Iterable[str], options: TextOptions, read: Callable[[str], str] | None = None) -> Heard:
    """A text in pieces, as a session takes it: markup away, cut into chunks, each made words (by `read`)."""
    read = read or (lambda chunk: spoken(chunk, options))
    pieces = list(pieces)
    if len(pieces) == 1:
        pieces = [behind_thought(pieces[0], options)]
    markup, splitter = Markup(options), TextSplitter()
    for piece in pieces:
        splitter.push(markup.push(piece))
    splitter.push(markup.finish())
    splitter.close()
    words, silence_ms, chunks = list[str](), 0.0, list[str]()
    while chunk := splitter.next_chunk(eager=True):
        if chunk.cut is Cut.PAUSE:
            silence_ms += 1000 * marks.seconds_of(chunk.source)
        else:
            chunks.append(chunk.text)
            words.append(read(chunk.source))
    return Heard(" ".join(filter(None, words)), silence_ms, tuple(chunks))


def judged(case: dict[str, Any], result: Heard) -> bool:
    """Whether a result is what the case expects."""
    said = _folded(result.words)
    right = "spoken" not in case or any(said == _folded(words) for words in _readings(case["spoken"]))
    right &= "exact" not in case or result.words == case["exact"]
    right &= all(any(_folded(w) in said for w in _readings(words)) for words in case.get("spoken_has", ()))
    right &= all(re.search(pattern, result.words) for pattern in case.get("matches", ()))
    right &= all(words.lower() not in result.words.lower() for words in case.get("spoken_not", ()))
    right &= case.get("keeps", "") in result.words
    if "sentences" in case:
        ends = [cut for chunk in result.chunks for _, cut in boundaries(chunk + " A") if cut is Cut.SENTENCE]
        right &= len(ends) == case["sentences"]
    if "silence_ms" in case:
        low, high = case["silence_ms"]
        right &= low <= result.silence_ms <= high
    return right


def run(path: Path | None = None, *, grammars: bool = True) -> list[Score]:
    """Every way over every case; the time is the median of several rounds, without what was remembered."""
    cases = load_cases(path)
    scores = [_rules(cases)]
    if grammars:
        scores.append(asyncio.run(_grammars(cases)))
    return scores


def table(scores: Sequence[Score]) -> str:
    """For people: the share of cases that is right and the time, then what is wrong."""
    lines = [f"{'':10} {'right':>7} {'median ms':>10} {'slowest ms':>11}"]
    for score in scores:
        lines.append(f"{score.name:10} {score.right:7.1%} {median(score.ms):10.3f} {max(score.ms):11.3f}")
    for score in scores:
        lines += (f"{score.name} {case}: {said}" for case, said in score.wrong.items())
    return "\n".join(lines)


def as_json(scores: Sequence[Score]) -> str:
    """For programs."""
    rows = [
        {"way": it.name, "cases": it.cases, "right": it.right, "median_ms": median(it.ms), "max_ms": max(it.ms)}
        | {"wrong": it.wrong}
        for it in scores
    ]
    return json.dumps(rows, ensure_ascii=False, indent=2)


def _rules(cases: Sequence[dict[str, Any]]) -> Score:
    score = Score("rules")
    for case in cases:
        options, pieces = options_for(case), case.get("pieces") or [case["text"]]
        times, result = list[float](), Heard("", 0.0, ())
        for _ in range(ROUNDS):
            began = time.perf_counter()
            result = heard(pieces, options, lambda chunk, options=options: read_out(chunk, options))
            times.append(1000 * (time.perf_counter() - began))
        _note(score, case, result, median(times))
    return score


async def _grammars(cases: Sequence[dict[str, Any]]) -> Score:
    """Markup read as by ours, numbers by the grammars."""
    score = Score("grammars")
    async with Normaliser("en") as normaliser:
        await normaliser.read(["Warm up 1."])
        for case in cases:
            options, pieces = options_for(case), case.get("pieces") or [case["text"]]
            chunks: list[str] = []
            heard(pieces, options, lambda chunk, chunks=chunks: chunks.append(chunk) or "")
            began = time.perf_counter()
            plain = {chunk: marks.as_written(chunk).replace("\n", ". ").strip() for chunk in chunks}
            readings = await normaliser.read(list(plain.values()))
            ms = 1000 * (time.perf_counter() - began)
            said = {chunk: readings[plain[chunk]] or plain[chunk] for chunk in chunks}
            _note(score, case, heard(pieces, options, said.__getitem__), ms)
    return score


def _note(score: Score, case: dict[str, Any], result: Heard, ms: float) -> None:
    score.cases += 1
    score.ms.append(ms)
    if not judged(case, result):
        score.wrong[case["id"]] = result.words


def _readings(expected: str | list[str]) -> list[str]:
    """Those that are right."""
    return [expected] if isinstance(expected, str) else expected


def _folded(text: str) -> str:
    """Small letters and words alone, one space between."""
    return " ".join(re.sub(r"[^\w\s]", " ", text.lower()).split())
