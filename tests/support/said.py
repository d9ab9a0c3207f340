"""What a worker would have its model read, of what a fake one was told: cut and read by the worker's own code."""

from __future__ import annotations

from collections.abc import Iterable

from app.platform.settings import SessionSettings
from app.speech.protocol import Eos, Flush, Message, Resumption, Text
from app.speech.text.marks import is_pause
from app.speech.text.options import TextOptions
from app.speech.text.spoken import spoken
from app.speech.token_layout import ORPHEUS_TAGS
from workers.turn import TurnText, source_of


def said(commands: Iterable[Message], options: TextOptions) -> str:
    """The words of one session, by an engine that is always waiting for more text, as the first to be heard is."""
    turn = TurnText(Resumption(), tags=ORPHEUS_TAGS, settings=SessionSettings())
    words: list[str] = []
    for command in commands:
        match command:
            case Text():
                turn.push(command.text)
            case Flush():
                turn.flush()
            case Eos():
                turn.end()
            case _:
                pass
        while chunk := turn.next():
            if not is_pause(source := source_of(chunk)):
                words.append(spoken(source, options, tags=ORPHEUS_TAGS))
    return " ".join(filter(None, words))
