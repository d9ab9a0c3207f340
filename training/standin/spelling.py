"""How English is spelt: rules from pieces of words to phones, learnt from a dictionary, applied in order of length.

A word stands between START and END. The longest piece that has a rule is read first, wherever it stands, then the next
longest, down to single letters; those of one length go by the alphabet, and whole words are rules like any other. That
is what a sequence of `Replace` normalisers does, so the stand-in's tokenizer reads by itself. Phones are flite's, as
its lexicon (CMU's, free) and its letter-to-sound rules say them. Nothing here knows tokens or models.
"""

from __future__ import annotations

import math
import re
import subprocess
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

RULES_FILE = Path(__file__).with_name("spelling.txt")
_PHONE_NAMES = "aa ae ah ao aw ax ay b ch d dh eh er ey f g hh ih iy jh k l m n ng ow oy p r s sh t th uh uw v w y z zh"
PHONES = tuple(_PHONE_NAMES.split())
START, END = "<", ">"
WORD = re.compile(r"[a-z']+")
LONGEST_PIECE = 7
MOST_PHONES = 3  # of one letter, when words are aligned
ROUNDS = 4
LEAST_GAIN = 12.0
"""How many weighted words a rule must set right. Of 1,500 rare words that it was not learnt from, 12 leaves 15.8 % of
the phones wrong with 4,200 rules, 6 leaves 14.0 % with 9,700: twice the tokenizer's time for little."""
MOST_WORDS = 2500  # rules for whole words: what a tokenizer can try in a few milliseconds

Phones = tuple[str, ...]
Rules = Mapping[str, Phones]


def read(word: str, rules: Rules) -> Phones:
    """The phones of `word`, which may be a piece of one with or without its START and END."""
    said: list[Phones | None] = [None] * len(word)
    for length in range(len(word), 0, -1):
        pieces = ((word[first : first + length], first) for first in range(len(word) - length + 1))
        for piece, first in sorted(found for found in pieces if found[0] in rules):
            if all(part is None for part in said[first : first + length]):
                said[first : first + length] = [rules[piece], *[()] * (length - 1)]
    return tuple(phone for part in said for phone in part or ())


def marked(word: str) -> str:
    """`word` between the marks of its start and end."""
    return f"{START}{word}{END}"


def pronounced(words: list[str]) -> dict[str, Phones]:
    """Each word alone, as flite says it; those it says as nothing are left out."""
    with tempfile.NamedTemporaryFile("w", encoding="ascii", suffix=".txt") as listed:
        listed.write("".join(f"{word}\n\n" for word in words))
        listed.flush()
        command = ["flite", "-ps", "-f", listed.name, "-o", "none"]
        lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    if len(lines) != len(words):  # it took one for part of another's utterance: look for it by halves
        half = len(words) // 2
        return pronounced(words[:half]) | pronounced(words[half:]) if half else {}
    said = (tuple(phone for phone in line.split() if phone != "pau") for line in lines)
    return {word: phones for word, phones in zip(words, said, strict=True) if phones}


def learnt(dictionary: Mapping[str, Phones], counts: Mapping[str, int]) -> dict[str, Phones]:
    """The rules of `dictionary`, in which a word weighs by the logarithm of how often it occurs."""
    weights = {word: 1 + math.log(counts.get(word, 1)) for word in dictionary}
    rules = _piece_rules(_aligned(dictionary), weights)
    wrong = [word for word in dictionary if read(marked(word), rules) != dictionary[word]]
    wrong.sort(key=lambda word: (-counts.get(word, 1), word))
    return rules | {marked(word): dictionary[word] for word in wrong[:MOST_WORDS]}


def _aligned(dictionary: Mapping[str, Phones]) -> dict[str, list[Phones]]:
    """Per word, which phones each of its letters makes: the likeliest alignment, after a few rounds of counting."""
    chances: dict[tuple[str, Phones], float] = {}
    aligned: dict[str, list[Phones]] = {}
    for _ in range(ROUNDS):
        aligned = {word: _alignment(word, phones, chances) for word, phones in dictionary.items()}
        pairs = Counter(
            (letter, part) for word, parts in aligned.items() for letter, part in zip(word, parts, strict=True)
        )
        letters = Counter(letter for word in aligned for letter in word)
        chances = {pair: math.log(count / letters[pair[0]]) for pair, count in pairs.items()}
    return aligned


def _alignment(word: str, phones: Phones, chances: Mapping[tuple[str, Phones], float]) -> list[Phones]:
    """By dynamic programming over how many phones are said after each letter; the rest falls to the last letter."""
    best: dict[int, tuple[float, list[Phones]]] = {0: (0.0, [])}
    for done, letter in enumerate(word, start=1):
        reached: dict[int, tuple[float, list[Phones]]] = {}
        ideal = len(phones) * done / len(word)
        for said, (score, parts) in best.items():
            for after in range(said, min(len(phones), said + MOST_PHONES) + 1):
                part = phones[said:after]
                unknown = -8.0 - 2 * abs(len(part) - 1) - 0.1 * abs(after - ideal)
                total = score + (chances.get((letter, part), -12.0) if chances else unknown)
                if after not in reached or total > reached[after][0]:
                    reached[after] = total, [*parts, part]
        best = reached
    if len(phones) in best:
        return best[len(phones)][1]
    said, (_, parts) = max(best.items())
    return [*parts[:-1], parts[-1] + phones[said:]]


def _piece_rules(aligned: Mapping[str, list[Phones]], weights: Mapping[str, float]) -> dict[str, Phones]:
    """From single letters up, the pieces that are mostly said otherwise than shorter rules would say them."""
    rules: dict[str, Phones] = {START: (), END: ()}
    for length in range(1, LONGEST_PIECE + 1):
        heard: dict[str, Counter[Phones]] = defaultdict(Counter)
        for word, parts in aligned.items():
            spelt, said = marked(word), [(), *parts, ()]
            for first in range(len(spelt) - length + 1):
                phones = tuple(phone for part in said[first : first + length] for phone in part)
                heard[spelt[first : first + length]][phones] += weights[word]  # type: ignore[assignment]
        found = {}
        for piece, sayings in heard.items():
            phones, weight = sayings.most_common(1)[0]
            shorter = read(piece, rules)
            alone = length == 1 and piece not in rules
            if alone or (phones != shorter and weight - sayings[shorter] >= LEAST_GAIN):
                found[piece] = phones
        rules |= found
    return rules


def phone_error_rate(dictionary: Mapping[str, Phones], rules: Rules, counts: Mapping[str, int]) -> tuple[float, float]:
    """Shares of words and of phones read wrongly, each word as often as it occurs."""
    words = wrong_words = phones = wrong_phones = 0
    for word, wanted in dictionary.items():
        count = counts.get(word, 1)
        missed = _distance(read(marked(word), rules), wanted)
        words, phones = words + count, phones + count * len(wanted)
        wrong_words, wrong_phones = wrong_words + count * (missed > 0), wrong_phones + count * missed
    return wrong_words / words, wrong_phones / phones


def _distance(said: Phones, wanted: Phones) -> int:
    row = list(range(len(wanted) + 1))
    for number, phone in enumerate(said, start=1):
        previous, row[0] = row[0], number
        for column, other in enumerate(wanted, start=1):
            change = previous + (phone != other)
            previous, row[column] = row[column], min(change, row[column] + 1, row[column - 1] + 1)
    return row[-1]


def counted(lines: Iterable[str]) -> Counter[str]:
    """How often each word occurs."""
    return Counter(word for line in lines for word in WORD.findall(line.lower()) if word.strip("'"))


def make(sentences: Path, path: Path = RULES_FILE) -> None:
    """Learns the rules from the words of `sentences`, one a line, and writes them; a few minutes."""
    counts = counted(sentences.read_text(encoding="utf-8").splitlines())
    words = sorted(word for word in counts if word == word.strip("'"))
    write_rules(learnt(pronounced(words), counts), path)


def write_rules(rules: Rules, path: Path = RULES_FILE) -> None:
    """One rule a line: the piece and its phones, the longest first."""
    ordered = sorted(rules, key=lambda piece: (-len(piece), piece))
    path.write_text("".join(" ".join((piece, *rules[piece])) + "\n" for piece in ordered), encoding="utf-8")


def stored_rules(path: Path = RULES_FILE) -> dict[str, Phones]:
    """The rules of the file, the longest first."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return {piece: tuple(phones) for piece, *phones in map(str.split, lines)}
