"""The stand-in's token ids: Orpheus's special-token roles, phones, then seven bands of audio codes.

0..9     pad, start/end of text, human, AI and speech, unknown
10..17   emotion tags
18..     phones, the mark before a word, punctuation
base..   audio: base + k * codebook_size + code for position k = 0..6 of a frame
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from training.standin.phonemes import (
    FRAME_TOKENS,
    SPECIAL,
    SYMBOL,
    WORD_MARK,
    reading_vocabulary,
)
from training.standin.spelling import Phones, marked, read, stored_rules
from training.standin.tags import TAGS

LOUDNESS_LUFS = -26.9  # of the built-in voices, by pyloudnorm
RECIPE = {"learning_rate": 4e-3, "batch_clips": 2, "corruption": 0.2}
"""For a LoRA: so small a model has little rank to spare, and learns with a rate that would wreck Orpheus."""
GATE = {"max_word_error_rate": 0.5}
"""Ten minutes of a speaker are few for it: its clones are understood less than its own voices (its model card)."""


@dataclass(frozen=True)
class Word:
    """What is read of a word: its phones, or one emotion tag, and the punctuation mark after it, if any."""

    phones: Phones
    mark: str = ""
    tag: str = ""


@dataclass(frozen=True)
class Tokens:
    """Which id means what, for one codebook size."""

    codebook_size: int
    ids: dict[str, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", reading_vocabulary(self.codebook_size))

    def __getitem__(self, name: str) -> int:
        return self.ids[name]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def audio_base(self) -> int:
        """The id of code 0 at position 0."""
        return len(self) - FRAME_TOKENS * self.codebook_size

    def speech_settings(self, voices: Sequence[str]) -> dict[str, object]:
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
            "gate": dict(GATE),
        }

    def prompt(self, voice: str, words: Sequence[Word]) -> tuple[list[int], list[int], list[int]]:
        """Ids from start of human through start of speech, as the engine sends them.

        Also the index of each phone's or tag's id, and of what closes each word: its mark's id, or its last one's.
        """
        ids = [self["<start_of_human>"], self["<start_of_text>"], self[WORD_MARK]]
        ids += [*(self[SYMBOL[phone]] for phone in read(marked(voice), stored_rules())), self[":"]]
        phones, closings = [], []
        for word in words:
            spelt = [self[word.tag]] if word.tag else [self[SYMBOL[phone]] for phone in word.phones]
            ids += [] if word.tag else [self[WORD_MARK]]
            phones += range(len(ids), len(ids) + len(spelt))
            ids += [*spelt, *(self[mark] for mark in word.mark)]
            closings.append(len(ids) - 1)
        closing = ("<end_of_text>", "<end_of_human>", "<start_of_ai>", "<start_of_speech>")
        return [*ids, *(self[name] for name in closing)], phones, closings
