"""A context as ElevenLabs' sockets have it: audio, the times of its characters, and always `isFinal` at its end."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from app.api.dialect_context import DialectContext
from app.api.dialect_socket import DialectStream, close_code
from app.api.elevenlabs.wire import STATUSES, alignment_ms
from app.api.manner import Manner
from app.api.segment_timing import Words
from app.api.speaking import Delivery, Sound
from app.errors import CarillonError


@dataclass(frozen=True)
class Terms:
    """What the address of a socket says of all its contexts."""

    manner: Manner
    phrases: bool = False
    """Each message is a whole phrase (`auto_mode`), whether or not a space ends it."""
    since_start: bool = False
    """Times of characters count from the context's start (`sync_alignment`), and not from the last that were sent."""


class Context(DialectContext):
    """A context, named by its client; None on a socket that has only one. `forget` is called once it has ended."""

    def __init__(self, id: str | None, terms: Terms, stream: DialectStream, forget: Callable[[Context], None]) -> None:
        super().__init__(stream, terms.manner)
        self.id = id
        self.drains = False
        """Its client has flushed without text: it has nothing to add."""
        self._terms = terms
        self._forget = forget
        self._timed_until_s = 0.0

    def hear(self, text: str, *, flush: bool) -> None:
        """Take a message's text, and whether it is to be spoken at once."""
        if text:
            self.say(text, phrase=self._terms.phrases)
        if flush:
            self.flush()
        self.drains = not text.strip() and (flush or self.drains)

    async def deliver(self, delivery: Delivery) -> None:
        match delivery:
            case Sound():
                await self._send(audio=base64.b64encode(delivery.audio).decode("ascii"))
            case Words():
                since_s = 0.0 if self._terms.since_start else self._timed_until_s
                self._timed_until_s = delivery.end_s
                await self._send(
                    audio=None,
                    alignment=alignment_ms(delivery.written_characters(), since_s=since_s),
                    normalizedAlignment=alignment_ms(delivery.spoken_characters(), since_s=since_s),
                    approximate=delivery.approximate,
                )
            case _:
                pass

    async def _send(self, **fields: Any) -> None:
        nothing = {"isFinal": None, "alignment": None, "normalizedAlignment": None}
        await self.stream.socket.send({**nothing, **fields, **self._named()})

    async def failed(self, error: CarillonError) -> None:
        await self.stream.socket.send({**failure(error), **self._named()})

    async def ended(self) -> None:
        await self.stream.socket.send({"audio": None, "isFinal": True, **self._named()})
        self._forget(self)

    def _named(self) -> dict[str, str]:
        """Both spellings: LiveKit reads either, Pipecat the first."""
        return {} if self.id is None else {"contextId": self.id, "context_id": self.id}


def failure(error: CarillonError) -> dict[str, Any]:
    """An error as their sockets say it."""
    return {"message": error.message, "error": STATUSES.get(error.code, error.code), "code": close_code(error)}
