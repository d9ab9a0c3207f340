"""The stand-in's token ids: Orpheus's special-token roles, words and characters, then seven bands of audio codes.

    0..9     pad, start/end of text, human, AI and speech, unknown
    10..17   emotion tags
    18..     characters, characters inside a word, punctuation, digits, whole words
    base..   audio: base + k * codebook_size + code for position k = 0..6 of a frame

A word of the vocabulary is one token; any other word is the longest known beginnings of it, down to single characters
(WordPiece), so nothing is unspeakable, and the text stays short enough for a tiny model to follow.
"""

from __future__ import annotations

import random
import string
from dataclasses import dataclass, field
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from training.standin.sentences import TAGS, TEXT_PIECE, vocabulary

SPECIAL = (
    "<pad>", "<start_of_text>", "<end_of_text>", "<start_of_human>", "<end_of_human>",
    "<start_of_ai>", "<end_of_ai>", "<start_of_speech>", "<end_of_speech>", "<unknown>",
)  # fmt: skip
PUNCTUATION = ".,?!;:"
LETTERS = string.ascii_lowercase + "'"
FRAME_TOKENS = 7
LOUDNESS_LUFS = -26.1  # of the announcers, by pyloudnorm
RECIPE = {"learning_rate": 4e-3, "batch_clips": 2, "corruption": 0.2}
"""For a LoRA: so small a model has little rank to spare, and learns with a rate that would wreck Orpheus."""
_WORD_PIECE = r"[a-z']+|[0-9]|[.,?!;:]"


@dataclass(frozen=True)
class Tokens:
    """Which id means what, for one codebook size."""

    codebook_size: int
    ids: dict[str, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        names = [*SPECIAL, *TAGS, *LETTERS, *(f"##{letter}" for letter in LETTERS), *PUNCTUATION, *string.digits]
        names = list(dict.fromkeys([*names, *vocabulary()]))
        names += [
            f"<audio_{position}_{code}>" for position in range(FRAME_TOKENS) for code in range(self.codebook_size)
        ]
        object.__setattr__(self, "ids", {name: number for number, name in enumerate(names)})

    def __getitem__(self, name: str) -> int:
        return self.ids[name]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def audio_base(self) -> int:
        """The id of code 0 at position 0."""
        return len(self) - FRAME_TOKENS * self.codebook_size

    def speech_settings(self, voices: tuple[str, ...]) -> dict[str, object]:
        """The `speech` entry of the model's config.json."""
        roles = {name.strip("<>"): number for name, number in self.ids.items() if name in SPECIAL}
        return {
            "name": "standin",
            "stand_in": True,
            "languages": ["en"],
            "voices": list(voices),
            "tags": list(TAGS),
            "audio_token_base": self.audio_base,
            **{f"{role}_id": roles[role] for role in (name.strip("<>") for name in SPECIAL[:-1])},
            "prompt_form": "{voice}: {text}",
            "loudness_lufs": LOUDNESS_LUFS,
            "recipe": dict(RECIPE),
        }

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The Hugging Face tokenizer: lower-cases, strips accents, drops what the language lacks, then WordPiece."""
        fast = Tokenizer(models.WordPiece(self.ids, unk_token="<unknown>", max_input_chars_per_word=10_000))
        fast.normalizer = normalizers.Sequence(
            [
                normalizers.NFKD(),
                normalizers.StripAccents(),
                normalizers.Replace("\N{RIGHT SINGLE QUOTATION MARK}", "'"),
                normalizers.Lowercase(),
            ]
        )
        fast.pre_tokenizer = pre_tokenizers.Split(Regex(_WORD_PIECE), behavior="removed", invert=True)
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

    def spelled(self, word: str, whole: bool = True) -> list[int]:
        """A word's ids: one if `whole` and known, else its longest known proper beginning and then characters."""
        if whole and word in self.ids:
            return [self.ids[word]]
        length = len(word) - 1
        while length > 1 and word[:length] not in self.ids:
            length -= 1
        length = max(1, length)
        return [self.ids[word[:length]], *(self.ids[f"##{letter}"] for letter in word[length:])]

    def prompt(self, voice: str, text: str) -> list[int]:
        """Ids from start of human through start of speech, as the engine sends them."""
        return self.aligned_prompt(voice, text)[0]

    def aligned_prompt(
        self, voice: str, text: str, draw: random.Random | None = None, spell_share: float = 0.0
    ) -> tuple[list[int], list[tuple[int, int]]]:
        """`prompt`, and for each of the text's words, tags and punctuation marks its first id's index and the next's.

        With `draw`, words are spelled as if unknown at `spell_share`, a third of them wholly in characters.
        """
        ids = [self["<start_of_human>"], self["<start_of_text>"]]
        spans: list[tuple[int, int]] = []
        for found in TEXT_PIECE.findall(f"{voice}: {text}".lower()):
            first = len(ids)
            if draw is None or len(found) == 1 or found[0] == "<" or draw.random() >= spell_share:
                ids += [self.ids[found]] if found in TAGS else self.spelled(found)
            elif draw.random() < 1 / 3:
                ids += [self.ids[found[0]], *(self.ids[f"##{letter}"] for letter in found[1:])]
            else:
                ids += self.spelled(found, whole=False)
            spans.append((first, len(ids)))
        closing = ("<end_of_text>", "<end_of_human>", "<start_of_ai>", "<start_of_speech>")
        voice_marks = len(TEXT_PIECE.findall(f"{voice}:".lower()))
        return [*ids, *(self.ids[name] for name in closing)], spans[voice_marks:]


def save_tokenizer(tokens: Tokens, directory: Path) -> None:
    """Writes tokenizer.json and tokenizer_config.json."""
    tokens.tokenizer().save_pretrained(directory)
