"""What has been said so far, as a chat model reads it: of an answer that was cut off, what was heard of it.

Two things said one after the other by the same side are one message. It knows no audio and no time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MOST_MESSAGES = 40
"""The latest are kept."""


@dataclass(frozen=True)
class Said:
    """One message, as OpenAI's chat endpoint has it."""

    role: Literal["user", "assistant"]
    content: str


class Dialogue:
    """The messages of one conversation."""

    def __init__(self) -> None:
        self._said: list[Said] = []

    @property
    def messages(self) -> tuple[Said, ...]:
        return tuple(self._said)

    def with_question(self, words: str) -> tuple[Said, ...]:
        """The messages as they would be if a person had said `words`: an answer may be tried before it is sure."""
        return tuple(_joined(self._said, Said("user", words)))

    def asked(self, words: str) -> None:
        """A person has said `words`, for sure."""
        self._said = _joined(self._said, Said("user", words))

    def answered(self, words: str, *, cut: bool = False) -> None:
        """`words` of an answer were heard; an answer that was cut off before its first word was never given."""
        if words.strip():
            self._said = _joined(self._said, Said("assistant", words.strip() + (" \N{HORIZONTAL ELLIPSIS}" * cut)))


def _joined(said: list[Said], message: Said) -> list[Said]:
    if said and said[-1].role == message.role:
        return [*said[:-1], Said(message.role, f"{said[-1].content} {message.content}")]
    return [*said, message][-MOST_MESSAGES:]
