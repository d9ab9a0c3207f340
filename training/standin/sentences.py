"""The stand-in's little language: its words, the texts drawn from them, and how a text is spoken piece by piece.

A text becomes a list of `Piece`s: a word, a tag, or frames of room tone. Nothing here knows about waveforms or codes;
`speech.py` and `dictionary.py` give pieces their sound.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

WORDS_FILE = Path(__file__).with_name("words.txt")
TAGS = ("<laugh>", "<chuckle>", "<sigh>", "<cough>", "<sniffle>", "<groan>", "<yawn>", "<gasp>")
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
HEAD_FRAMES = (
    7  # 597 ms of room tone before every built-in clip: the pause of real base voices, there to be trained away
)
SHORT_PAUSE_FRAMES = 2
LONG_PAUSE_FRAMES = 4
PAUSE_FRAMES = {",": 2, ";": 2, ":": 2, ".": 4, "?": 4, "!": 4}

TEXT_PIECE = re.compile("|".join(TAGS) + r"|[a-z']+|[0-9]|[.,?!;:]")


@dataclass(frozen=True, slots=True)
class Piece:
    """One thing to be spoken: a `word` (which may be a tag), or `frames` of room tone when `word` is empty."""

    word: str
    frames: int = 0


def vocabulary() -> list[str]:
    """The words of words.txt in file order, each once."""
    lines = WORDS_FILE.read_text(encoding="utf-8").splitlines()
    return list(dict.fromkeys(word for line in lines if not line.startswith("#") for word in line.split()))


def pieces_of(text: str) -> list[Piece]:
    """How `text` is announced: head of room tone, words and tags, pauses; it always ends with a pause.

    Characters outside the language are dropped, digits are spoken one by one, consecutive punctuation makes the
    longest of its pauses, and a text that ends without punctuation ends as if with a full stop.
    """
    pieces = [Piece("", frames=HEAD_FRAMES)]
    for found in TEXT_PIECE.findall(text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")):
        if found in PAUSE_FRAMES:
            _pause(pieces, PAUSE_FRAMES[found])
        elif found in TAGS:
            pieces.append(Piece(found))
        elif word := found.strip("'"):
            pieces.append(Piece(DIGITS[int(word)] if word.isdigit() else word))
    if pieces[-1].word:
        _pause(pieces, LONG_PAUSE_FRAMES)
    return pieces


def marks_of(text: str) -> list[int]:
    """For each word, tag and punctuation mark that `TEXT_PIECE` finds in `text`, its piece in `pieces_of(text)`."""
    owners: list[int] = []
    after_word = False
    for found in TEXT_PIECE.findall(text.lower()):
        last = owners[-1] if owners else 0
        if found in PAUSE_FRAMES:
            owners.append(last + after_word)
            after_word = False
        else:
            owners.append(last + 1)
            after_word = True
    return owners


def _pause(pieces: list[Piece], frames: int) -> None:
    """Adds a pause after a word; a pause already there is lengthened if need be."""
    last = pieces[-1]
    if last.word:
        pieces.append(Piece("", frames=frames))
    elif len(pieces) > 1:
        pieces[-1] = Piece("", frames=max(frames, last.frames))


_TEMPLATES = (
    "the {n} {v} the {a} {n}", "i {v} to {b} the {n}", "please {b} your {n}", "do you {b} the {a} {n}",
    "we {v} {p} the {n}", "they {m} {b} {p} the {n} {t}", "he doesn't {b} {a} {n}", "she {v} a {a} {n} {p} the {n}",
    "it's a {a} {n}", "{t} the {n} {m} {b}", "that's {a} and {a}", "there are {d} {n} {p} the {n}", "hello {n}",
    "good morning, {n}", "thank you", "thanks for the {n}", "you {m} {b} {d} {n} {t}", "the number is {d} {d} {d}",
    "let's {b} the {n} {p} the {a} {n}", "what is the {n} of the {n}", "where is my {a} {n}", "i'm {a}", "yes", "no",
    "if you {b} the {n}, we {m} {b} it {t}", "{n}, {n} and {n}", "welcome to the {a} {n}", "how {a} is the {n}",
)  # fmt: skip
_SLOTS = {
    "m": "can could will would should may might must won't can't shouldn't",
    "p": "in on at by for with about against between into through before after above below from under near",
    "t": "now then today tomorrow yesterday tonight soon later early late once twice again always never",
    "d": " ".join(DIGITS) + " ten twelve twenty thirty forty fifty hundred thousand",
    "b": "go get give take make see look know find tell ask work feel try leave call keep put say show play move hold"
    " bring write stand lose pay meet learn lead watch follow create read open walk offer remember love buy serve send"
    " build stay cut reach stop start help listen answer speak test carry break draw drive sing",
    "v": "went got gave took made saw looked knew found told asked worked felt tried left called kept said showed"
    " played moved held brought wrote stood lost paid met learned led watched followed created read opened walked"
    " remembers loves bought served sent built stayed reached stopped started helps listens speaks",
    "a": "good better big small large great little long short high low old young new fresh hot cold warm dry hard soft"
    " heavy easy simple strong fast slow rich empty happy angry hungry brave gentle strange public foreign safe certain"
    " different wide deep bright red blue green yellow black white brown golden beautiful perfect clear quiet",
    "n": "voice audio fleet server model stream session word text sentence letter message request answer question file"
    " page link network machine phone system user password name list table error report version bell tower ring song"
    " man woman child friend teacher doctor driver king house room door window garden street bridge city country river"
    " lake mountain forest tree flower school office market hospital train plane ship book paper picture game box"
    " bottle chair lamp mirror key bread butter apple coffee dinner dog cat horse bird eye hand heart money story",
}


@dataclass(frozen=True)
class SentenceSampler:
    """Draws texts from the vocabulary: half from templates, half random word sequences that only a reader can follow.

    Random order is the point of the exercise: nothing but the text says which word comes next, so the model must learn
    to follow the text rather than the language.
    """

    words: tuple[str, ...]
    tag_share: float = 0.04
    digit_share: float = 0.06

    def word(self, draw: random.Random) -> str:
        """One word, a string of 1-4 digits, or a tag, by the sampler's shares."""
        chance = draw.random()
        if chance < self.tag_share:
            return draw.choice(TAGS)
        if chance < self.tag_share + self.digit_share:
            return "".join(draw.choice("0123456789") for _ in range(draw.randint(1, 4)))
        return draw.choice(self.words)

    def phrase(self, draw: random.Random, words: int) -> str:
        """About `words` words without end punctuation: commas now and then, sometimes a word said twice or more."""
        spoken: list[str] = []
        while len(spoken) < words:
            again = spoken and draw.random() < 0.06
            spoken.append(draw.choice(spoken[-4:]).rstrip(",;:") if again else self.word(draw))
            if len(spoken) < words and draw.random() < 0.1:
                spoken[-1] += draw.choice((",", ",", ",", ";", ":"))
        return " ".join(spoken)

    def templated(self, draw: random.Random) -> str:
        """A sentence from a template without end punctuation, of 1-15 words."""
        template = draw.choice(_TEMPLATES)
        return re.sub(r"\{(\w)\}", lambda slot: draw.choice(_SLOTS[slot[1]].split()), template)

    def text(self, draw: random.Random, max_words: int) -> str:
        """One training text of 1 to about `max_words` words in one or several sentences."""
        sentences: list[str] = []
        room = draw.randint(1, max_words)
        while room > 0:
            if draw.random() < 0.35:
                sentence = self.templated(draw)
            else:
                sentence = self.phrase(draw, min(room, draw.randint(1, 14)))
            room -= len(sentence.split())
            sentences.append(sentence[0].upper() + sentence[1:] + draw.choice("....?!"))
        text = " ".join(sentences)
        return text[:-1] if draw.random() < 0.15 else text

    def sentence_of(self, draw: random.Random, words: int) -> str:
        """One plain sentence of exactly `words` distinct vocabulary words, for measurements."""
        return " ".join(draw.sample(self.words, words)).capitalize() + "."


EVALUATION_SEED = 20_240_601
EVALUATION_WORDS = (6, 9)


def evaluation_texts(sampler: SentenceSampler, count: int = 50) -> list[str]:
    """The `count` reserved texts that quality is measured on; trainers must refuse to train on them."""
    draw = random.Random(EVALUATION_SEED)
    return [sampler.sentence_of(draw, draw.randint(*EVALUATION_WORDS)) for _ in range(count)]


def training_texts(sampler: SentenceSampler, seed: int, max_words: tuple[int, ...]) -> Iterator[str]:
    """Endless training texts of one seed, each as long as one of `max_words` allows, none of them reserved."""
    reserved = {text.lower().rstrip(".?!") for text in evaluation_texts(sampler)}
    draw = random.Random(seed)
    while True:
        text = sampler.text(draw, draw.choice(max_words))
        if not any(sentence.strip() in reserved for sentence in re.split(r"[.?!]", text.lower())):
            yield text
