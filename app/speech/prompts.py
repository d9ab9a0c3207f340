"""A text as the ids of a prompt, in which nothing that a user wrote steers the model.

A tokenizer turns the spelling of a control token (`<custom_token_3>`, `<|eot_id|>`) into the token itself, and its own
switch against that spares those that were added as plain ones. So the result is checked: a token that no text may
become is taken apart, by encoding the text around a cut through its spelling. Training and serving encode alike. The
module does not know which tokenizer it is.
"""

from __future__ import annotations

from typing import Protocol

from app.speech.token_layout import TOKENS_PER_FRAME, TokenLayout


class Tokenizer(Protocol):
    """What is used of a tokenizer; those of transformers have it."""

    @property
    def unk_token_id(self) -> int | None: ...

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]: ...

    def get_added_vocab(self) -> dict[str, int]: ...


class PromptEncoder:
    """Prompts of one model. Of the tokenizer's added tokens only the model's own tags may come of a text, and the one
    for what it does not know.
    """

    def __init__(self, layout: TokenLayout, tokenizer: Tokenizer) -> None:
        self._layout = layout
        self._tokenizer = tokenizer
        added = tokenizer.get_added_vocab()
        allowed = {added.get(tag) for tag in layout.speech.tags} | {tokenizer.unk_token_id}
        self._forbidden = (frozenset(added.values()) - allowed) | layout.speech.control_ids
        self._audio = range(layout.band(0)[0], layout.band(TOKENS_PER_FRAME - 1)[1])
        self._spelling = {id: spelling for spelling, id in added.items()}

    def prompt(self, voice: str, text: str) -> list[int]:
        """Everything up to and with the start of speech."""
        return self._layout.prompt(self._ids(self._layout.text(voice, text)))

    def _ids(self, words: str) -> list[int]:
        ids = self._tokenizer.encode(words, add_special_tokens=False)
        wrong = next((id for id in ids if id in self._forbidden or id in self._audio), None)
        if wrong is None:
            return ids
        if len(words) < 2:
            return []  # a token of one character, which cannot be taken apart
        cut = self._cut(words, self._spelling.get(wrong, ""))
        return self._ids(words[:cut]) + self._ids(words[cut:])

    @staticmethod
    def _cut(words: str, spelling: str) -> int:
        """Where to cut the text: through the spelling, or in the middle where a normaliser found it in other words."""
        found = words.find(spelling) if len(spelling) > 1 else -1
        return len(words) // 2 if found < 0 else found + len(spelling) // 2
