"""One text spoken once over HTTP, for dialects whose answers carry more than audio: times of words, events.

As `app.api.speech_response`, it fails before the response begins where it can. The form it is given says how each
delivery looks on the wire.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Protocol

from fastapi import Response
from starlette.types import Receive, Scope, Send

from app.api.disconnect import while_connected
from app.api.manner import Manner
from app.api.services import Services
from app.api.speaking import Delivery, Speaking
from app.errors import CarillonError, SlowReader

log = logging.getLogger(__name__)


class DeliveryForm(Protocol):
    """How a response carries deliveries."""

    content_type: str

    def write(self, delivery: Delivery) -> bytes:
        """The words for one delivery; none where it is kept for later."""
        ...

    def failure(self, error: CarillonError) -> bytes | None:
        """The words that end a response which has begun; None: break the connection."""
        ...


class DeliveryResponse(Response):
    """Speaks `text` and ends. A client that leaves cancels the session at its worker."""

    def __init__(
        self,
        services: Services,
        manner: Manner,
        text: str,
        form: DeliveryForm,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.background = None
        self._services = services
        self._manner = manner
        self._text = text
        self._form = form
        self._headers = headers or {}
        self._begun = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await while_connected(self._answer(send), receive)

    async def _answer(self, send: Send) -> None:
        speaking = Speaking(self._services, self._manner)
        speaking.say(self._text)
        speaking.end()

        async def deliver(delivery: Delivery) -> None:
            if words := self._form.write(delivery):
                await self._write(send, words)

        try:
            await speaking.run(deliver)
            await self._write(send, b"", last=True)
        except CarillonError as error:
            if not self._begun:
                raise
            log.warning("speech broken off", extra={"code": error.code, "voice": self._manner.voice.id})
            words = self._form.failure(error)
            if words is not None:
                await self._write(send, words, last=True)

    async def _write(self, send: Send, body: bytes, *, last: bool = False) -> None:
        timeout_s = self._services.settings.session.slow_reader_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                if not self._begun:
                    self._begun = True
                    await send({"type": "http.response.start", "status": 200, "headers": self._head()})
                await send({"type": "http.response.body", "body": body, "more_body": not last})
        except TimeoutError:
            raise SlowReader(f"the client took no audio for {timeout_s:g} s") from None

    def _head(self) -> list[tuple[bytes, bytes]]:
        headers = {
            "content-type": self._form.content_type,
            "cache-control": "no-store",
            "x-carillon-voice": self._manner.voice.id,
            **self._headers,
        }
        return [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in headers.items()]
