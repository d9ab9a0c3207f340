"""Speaks many lines concurrently, by the fleet's workers or by a test's voices."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Protocol

from app.realtime.background import Spoken
from app.speech.voices import Voice


class Synthesizer(Protocol):
    """Speaks a text with a voice."""

    async def speak(self, voice: Voice, text: str) -> Spoken:
        """Raises CarillonError."""
        ...


async def speak_each(
    synthesizer: Synthesizer,
    lines: Iterable[tuple[Voice, str]],
    received: Callable[[int, Spoken], None],
    *,
    at_once: int,
) -> None:
    """Speak every line, `at_once` at a time; `received` gets each utterance with its line's number as it is there.

    A line is asked for when its turn comes. The first error ends it all, and is raised.
    """
    queue = enumerate(lines)

    async def take_turns() -> None:
        for number, (voice, text) in queue:
            received(number, await synthesizer.speak(voice, text))

    try:
        async with asyncio.TaskGroup() as turns:
            for _ in range(at_once):
                turns.create_task(take_turns())
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
