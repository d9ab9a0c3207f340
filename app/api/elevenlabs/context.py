"""One context of a socket: a text of the client, spoken by a session from its first word on.

A context that was opened and has no word yet costs the fleet nothing, so it may be opened early and kept alive for as
long as its client likes. It ends in one of two ways, and always with `isFinal`: it is heard to its end, or, when the
listener barges in, is broken off at once.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any

from app.api.dialect_socket import DialectSocket
from app.api.elevenlabs.wire import STATUSES, alignment_ms
from app.api.segment_timing import Words
from app.api.services import Services
from app.api.speaking import Delivery, Manner, Sound, Speaking
from app.errors import CarillonError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Terms:
    """What the address of a socket says of all its contexts."""

    manner: Manner
    phrases: bool = False
    """Each message is a whole phrase (`auto_mode`), whether or not a space ends it."""
    since_start: bool = False
    """Times of characters count from the context's start (`sync_alignment`), and not from the last that were sent."""


class Context:
    """A context, named by its client; None on a socket that has only one.

    `start` makes a task that ends with the socket; `forget` is called when all has been said.
    """

    def __init__(
        self,
        id: str | None,
        terms: Terms,
        services: Services,
        socket: DialectSocket,
        *,
        start: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        forget: Callable[[Context], None],
    ) -> None:
        self.id = id
        self.closing = False
        """It takes no more text."""
        self.drains = False
        """Its client has flushed without text: it has nothing to add."""
        self._terms = terms
        self._manner = terms.manner
        self._services = services
        self._socket = socket
        self._start = start
        self._forget = forget
        self._speaking: Speaking | None = None
        self._task: asyncio.Task[None] | None = None
        self._broken_off = False
        self._timed_until_s = 0.0

    def settle(self, speed: float | None) -> None:
        """Take the settings that came with the first message."""
        if speed is not None and self._speaking is None:
            self._manner = replace(self._manner, speed=speed)

    def say(self, text: str) -> None:
        """Speak more text. Raises as `Speaking.say` does."""
        if not text.strip() and self._speaking is None:
            return
        if self._speaking is None:
            self._speaking = Speaking(self._services, self._manner)
            self._task = self._start(self._run(self._speaking))
        self._speaking.say(text)
        if self._terms.phrases and not text[-1].isspace():
            self._speaking.say(" ")
        self.drains = False

    def flush(self, *, empty: bool) -> None:
        """Speak what there is; `empty` where the message had no text."""
        self.drains = empty
        if self._speaking is not None:
            self._speaking.flush()

    def close(self) -> None:
        """End it when all has been heard."""
        if not self.closing:
            self.closing = True
            if self._speaking is None:
                self._start(self._end())
            else:
                self._speaking.end()

    def break_off(self) -> None:
        """End it at once; its request at the engine is gone."""
        if not self._broken_off:
            self.closing = self._broken_off = True
            if self._task is not None:
                self._task.cancel()
            self._start(self._end())

    async def _run(self, speaking: Speaking) -> None:
        self._socket.speaking += 1
        try:
            await speaking.run(self._deliver)
        except asyncio.CancelledError:
            if not self._broken_off:
                raise
        except CarillonError as error:
            log.info("context ended by an error", extra={"code": error.code})
            await self.fail(error)
        finally:
            self._socket.speaking -= 1
            self.closing = True
        if not self._broken_off:
            await self._end()

    async def _end(self) -> None:
        if self._broken_off and self._task is not None:
            await asyncio.wait([self._task])
        self._forget(self)
        await self._socket.send({"audio": None, "isFinal": True, **self._named()})

    async def fail(self, error: CarillonError) -> None:
        """Say what is wrong; it goes on where it can."""
        await self._socket.send({**failure(error), **self._named()})

    async def _deliver(self, delivery: Delivery) -> None:
        match delivery:
            case Sound():
                audio = base64.b64encode(delivery.audio).decode("ascii")
                await self._send(audio=audio)
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
        await self._socket.send({**nothing, **fields, **self._named()})

    def _named(self) -> dict[str, str]:
        """Both spellings: LiveKit reads either, Pipecat the first."""
        return {} if self.id is None else {"contextId": self.id, "context_id": self.id}


def failure(error: CarillonError) -> dict[str, Any]:
    """An error as their sockets say it."""
    return {"message": error.message, "error": STATUSES.get(error.code, error.code), "code": 1008}
