"""The host that answers where no language model is configured: a script, and it says so.

It greets, tells what it heard, tells the story of the bundled book a few sentences at a time, and counts. It has no
model and understands nothing: it looks for words.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

from app.talk.cues import words
from app.talk.dialogue import Said

STORY = Path(__file__).with_name("story.txt")
SENTENCES_AT_A_TIME = 2

GREETING = "Hello! I am a scripted host, not a language model. Ask me for a story, or ask me to count."
NAME = "scripted host"

_SENTENCE = re.compile(r"[^.!?]+[.!?]+[\"']?\s*")
_GREETINGS = frozenset(words("hello hi hey hallo greetings morning evening afternoon"))
_STORY = frozenset(words("story tale stories tell island bell"))
_ON = frozenset(words("on more continue next further then"))
_NAMES = (
    "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen",
    "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)  # fmt: skip
_NUMBERS = {name: number for number, name in enumerate(_NAMES, start=1)}


class ScriptedHost:
    """Answers with the same words to the same dialogue."""

    name = NAME

    def __init__(self, story: Path = STORY) -> None:
        self._sentences = [it.strip() for it in _SENTENCE.findall(story.read_text("utf-8").replace("\n", " "))]

    async def answer(self, dialogue: Sequence[Said]) -> AsyncGenerator[str, None]:
        """The answer to the last message, word by word."""
        for word in self._answer(dialogue).split():
            yield word + " "

    async def aclose(self) -> None:
        """There is nothing to close."""

    def _answer(self, dialogue: Sequence[Said]) -> str:
        heard = dialogue[-1].content
        said = set(words(heard))
        if "count" in said or "counting" in said:
            return _counted(heard)
        told = self._told(dialogue)
        if said & _STORY or (told and said & _ON):
            return self._story(told)
        if said & _GREETINGS:
            return GREETING
        if said & {"who", "what", "name"} and said & {"you", "your"}:
            return "I am Carillon's scripted host. No language model is configured, so I follow a script."
        return f"I heard: {heard.rstrip('.?! ')}. I follow a script: ask me for a story, or ask me to count."

    def _told(self, dialogue: Sequence[Said]) -> int:
        """How many sentences of the story have been heard."""
        answers = " ".join(it.content for it in dialogue if it.role == "assistant")
        return next((n for n, it in enumerate(self._sentences) if it not in answers), len(self._sentences))

    def _story(self, told: int) -> str:
        part = self._sentences[told : told + SENTENCES_AT_A_TIME]
        if not part:
            return "That was the beginning of the story. The whole book comes with Carillon."
        return " ".join(part)


def _counted(heard: str) -> str:
    """To the last number that was named, else to five."""
    named = [int(it) if it.isdecimal() else _NUMBERS[it] for it in words(heard) if it.isdecimal() or it in _NUMBERS]
    last = min(max(named[-1], 1), len(_NAMES)) if named else 5
    return ", ".join(_NAMES[:last]).capitalize() + "."
