"""The reading tokenizer: turns any English text into phones by itself, so the model needs no knowledge of spelling.

Its normaliser is a sequence of replacements: the rules of `spelling.py` in order of length, phones written in private
characters that no rule matches. Then each character is one token. Control tokens and audio codes are in the vocabulary
but have long names, which no single character can spell.
"""

from __future__ import annotations

from collections.abc import Mapping

from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from training.standin.spelling import END, PHONES, START, Phones
from training.standin.tags import TAGS

SPECIAL = (
    "<pad>", "<start_of_text>", "<end_of_text>", "<start_of_human>", "<end_of_human>",
    "<start_of_ai>", "<end_of_ai>", "<start_of_speech>", "<end_of_speech>", "<unknown>",
)  # fmt: skip
PUNCTUATION = ".,?!;:"
FRAME_TOKENS = 7
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_FIRST_PRIVATE = 0xE000
SYMBOL = {phone: chr(_FIRST_PRIVATE + number) for number, phone in enumerate(PHONES)}
_STARTS, _ENDS, SILENT = (chr(_FIRST_PRIVATE + len(PHONES) + number) for number in range(3))
"""A word's bounds while it is read; SILENT keeps what a rule took away from joining what stood on its two sides."""
WORD_MARK = " "
"""Before each word."""


def reading_vocabulary(codebook_size: int) -> dict[str, int]:
    """Roles, tags, phones, the mark before a word and punctuation, then seven bands of audio codes."""
    names = [*SPECIAL, *TAGS, *SYMBOL.values(), WORD_MARK, *PUNCTUATION]
    names += [f"<audio_{position}_{code}>" for position in range(FRAME_TOKENS) for code in range(codebook_size)]
    return {name: number for number, name in enumerate(names)}


def normalizer(rules: Mapping[str, Phones]) -> normalizers.Sequence:
    """Text to symbols; what the language lacks is dropped."""
    digits = {str(number): f" {word} " for number, word in enumerate(DIGITS)}
    steps = [
        normalizers.NFKD(),
        normalizers.StripAccents(),
        normalizers.Replace("\N{RIGHT SINGLE QUOTATION MARK}", "'"),
        normalizers.Lowercase(),
        *(normalizers.Replace(digit, word) for digit, word in digits.items()),
        normalizers.Replace(Regex(r"(?<![a-z])'+|'+(?![a-z])"), " "),  # quotes, not apostrophes
        normalizers.Replace(Regex(rf"[^a-z'{PUNCTUATION}]+"), " "),
        normalizers.Replace(Regex(r"(?<![a-z'])(?=[a-z'])"), _STARTS),
        normalizers.Replace(Regex(r"(?<=[a-z'])(?![a-z'])"), _ENDS),
    ]
    for piece in sorted(rules, key=lambda piece: (-len(piece), piece)):
        if piece not in (START, END):
            steps.append(normalizers.Replace(_marked(piece), _symbols(piece, rules[piece])))
    steps += [normalizers.Replace(Regex(f"[{_ENDS}{SILENT} ]+"), ""), normalizers.Replace(_STARTS, WORD_MARK)]
    return normalizers.Sequence(steps)


def _marked(piece: str) -> str:
    return piece.replace(START, _STARTS).replace(END, _ENDS)


def _symbols(piece: str, phones: Phones) -> str:
    """What stands in a piece's place: its phones, the start of its word if it has one, and never nothing."""
    return (_STARTS if piece[0] == START else "") + ("".join(SYMBOL[phone] for phone in phones) or SILENT)


def reading_tokenizer(rules: Mapping[str, Phones], codebook_size: int) -> PreTrainedTokenizerFast:
    """The Hugging Face tokenizer; all of it goes into tokenizer.json."""
    fast = Tokenizer(models.WordLevel(reading_vocabulary(codebook_size), unk_token="<unknown>"))
    fast.normalizer = normalizer(rules)
    fast.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    fast.add_tokens([AddedToken(tag, normalized=False) for tag in TAGS])
    return PreTrainedTokenizerFast(
        tokenizer_object=fast,
        pad_token="<pad>",
        bos_token="<start_of_human>",
        eos_token="<end_of_speech>",
        unk_token="<unknown>",
        model_max_length=4096,
        clean_up_tokenization_spaces=False,
    )


def reading_of(tokenizer: PreTrainedTokenizerFast, text: str) -> list[Phones]:
    """The phones of each of a text's words, as the tokenizer reads them."""
    phone_of = {symbol: phone for phone, symbol in SYMBOL.items()}
    words: list[list[str]] = []
    for name in tokenizer.convert_ids_to_tokens(tokenizer.encode(text, add_special_tokens=False)):
        if name == WORD_MARK:
            words.append([])
        elif name in phone_of:
            words[-1].append(phone_of[name])
    return [tuple(word) for word in words]
