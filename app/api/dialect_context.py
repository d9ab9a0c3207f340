"""One text of a client on a socket of another dialect, which may have several: from its first word to its end.

A context that was opened and has no word yet costs the fleet nothing, so it may be opened early and kept alive for as
long as its client likes. It ends in one of two ways: it is heard to its end, or, when the listener barges in, is broken
off at once. The dialect reports either in its own messages.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from dataclasses import replace

from app.api.dialect_socket import DialectStream
from app.api.manner import Manner
from app.api.speaking import Delivery, Speaking
from app.errors import CarillonError, Overloaded

log = logging.getLogger(__name__)


class DialectContext(ABC):
    """A context on `stream`, spoken as `manner` says."""

    def __init__(self, stream: DialectStream, manner: Manner) -> None:
        self.stream = stream
        self.closing = False
        """It takes no more text."""
        self.fault: CarillonError | None = None
        """The error that ended it and was reported to the client."""
        self._manner = manner
        self._speaking: Speaking | None = None
        self._task: asyncio.Task[None] | None = None
        self._broken_off = False

    def settle(self, *, speed: float | None) -> None:
        """Take settings that came before its first word; None: as they were."""
        if speed is not None and self._speaking is None:
            self._manner = replace(self._manner, speed=speed)

    def say(self, text: str, *, phrase: bool = False) -> None:
        """Speak more text; a `phrase` is whole, whether or not a space ends it. Raises as `Speaking.say` does."""
        if not text.strip() and self._speaking is None:
            return
        if self._speaking is None:
            if self.stream.socket.leaving:
                raise Overloaded("this server is shutting down; connect again", retry_after_s=1)
            self._speaking = Speaking(self.stream.services, self._manner)
            self._task = self.stream.start(self._run(self._speaking))
        self._speaking.say(text)
        if phrase and text and not text[-1].isspace():
            self._speaking.say(" ")

    def flush(self) -> bool:
        """Speak what there is; False where there is nothing yet."""
        if self._speaking is not None:
            self._speaking.flush()
        return self._speaking is not None

    def close(self) -> None:
        """End it when all has been heard."""
        if not self.closing:
            self.closing = True
            if self._speaking is None:
                self.stream.start(self._end())
            else:
                self._speaking.end()

    def break_off(self) -> None:
        """End it at once; its request at the engine is gone."""
        if not self._broken_off:
            self.closing = self._broken_off = True
            if self._task is not None:
                self._task.cancel()
            self.stream.start(self._end())

    async def _run(self, speaking: Speaking) -> None:
        self.stream.socket.speaking += 1
        try:
            await speaking.run(self.deliver)
        except asyncio.CancelledError:
            if not self._broken_off:
                raise
        except CarillonError as error:
            log.info("context ended by an error", extra={"code": error.code})
            self.fault = error
            await self.failed(error)
        finally:
            self.stream.socket.speaking -= 1
            self.closing = True
        if not self._broken_off:
            await self._end()

    async def _end(self) -> None:
        if self._broken_off and self._task is not None:
            await asyncio.wait([self._task])
        await self.ended()

    @abstractmethod
    async def deliver(self, delivery: Delivery) -> None:
        """Send what was made."""

    @abstractmethod
    async def failed(self, error: CarillonError) -> None:
        """Report the error."""

    @abstractmethod
    async def ended(self) -> None:
        """Report the end, exactly once."""
