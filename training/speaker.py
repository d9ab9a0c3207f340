"""Many lines spoken at once, by whoever can: the fleet's workers, or a test's own voices."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Protocol

from app.realtime.background import Spoken
from app.speech.voices import Voice


class Speaker(Protocol):
    """Whoever speaks a text with a voice."""

    async def speak(self, voice: Voice, text: str) -> Spoken:
        """Raises CarillonError."""
        ...


async def speak_each(
    speaker: Speaker,
    lines: Iterable[tuple[Voice, str]],
    heard: Callable[[int, Spoken], None],
    *,
    at_once: int,
) -> None:
    """Speak every line, `at_once` at a time; `heard` gets each utterance with its line's number as it is there.

    A line is asked for when its turn comes. The first error ends it all, and is raised.
    """
    queue = enumerate(lines)

    async def take_turns() -> None:
        for number, (voice, text) in queue:
            heard(number, await speaker.speak(voice, text))

    try:
        async with asyncio.TaskGroup() as turns:
            for _ in range(at_once):
                turns.create_task(take_turns())
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
