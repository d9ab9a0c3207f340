"""One text spoken once over HTTP: a response that runs the session and streams what it says.

Everything that can fail early fails before the response begins, and so has a status of its own. It does not know which
dialect asked: the form it is given says how audio, the end and an error look on the wire.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import Mapping
from contextlib import aclosing, closing
from typing import Any, Protocol

from fastapi import Response
from starlette.types import Receive, Scope, Send

from app.api.disconnect import while_connected
from app.api.errors import error_body, status_of
from app.api.manner import Manner
from app.api.services import Services
from app.api.stream_encoder import StreamEncoder
from app.api.whole_wav import MAX_CHARS, told_when_due, with_length
from app.errors import CarillonError, SlowReader
from app.realtime.session import RoutedSession
from app.speech.choices import AudioFormat
from app.speech.latency import Ledger, Stopwatch
from app.speech.protocol import AudioFrame, Done, Eos, Error, Text
from app.speech.text.thoughts import behind_thought

SILENCE_S = 0.1
"""What is heard of a text with nothing to say: players take no empty file."""

log = logging.getLogger(__name__)


class Form(Protocol):
    """How a response carries audio."""

    def content_type(self, audio_type: str) -> str: ...

    def piece(self, encoded: bytes) -> bytes: ...

    def end(self, text: str, ledger: Ledger) -> bytes: ...

    def failure(self, error: CarillonError) -> bytes | None:
        """The words that end a response which has begun; None: break the connection."""
        ...


class AudioForm:
    """The audio itself. A failure breaks the connection, so that a part is never taken for the whole."""

    def content_type(self, audio_type: str) -> str:
        return audio_type

    def piece(self, encoded: bytes) -> bytes:
        return encoded

    def end(self, text: str, ledger: Ledger) -> bytes:
        return b""

    def failure(self, error: CarillonError) -> bytes | None:
        return None


class EventForm:
    """Server-sent events, as OpenAI's: `speech.audio.delta` …, `speech.audio.done` with usage and our ledger."""

    def content_type(self, audio_type: str) -> str:
        return "text/event-stream; charset=utf-8"

    def piece(self, encoded: bytes) -> bytes:
        audio = base64.b64encode(encoded).decode("ascii")
        return _event({"type": "speech.audio.delta", "audio": audio})

    def end(self, text: str, ledger: Ledger) -> bytes:
        counts = {"input_tokens": len(text), "output_tokens": ledger.tokens, "total_tokens": len(text) + ledger.tokens}
        return _event({"type": "speech.audio.done", "usage": counts, "ledger": ledger.model_dump(mode="json")})

    def failure(self, error: CarillonError) -> bytes | None:
        body = error_body(status_of(error), error.message, code=error.code, param=error.param)
        return _event({"type": "error", **body})


class SpeechResponse(Response):
    """Speaks `text` and ends. A client that leaves cancels the session at its worker."""

    def __init__(
        self,
        services: Services,
        manner: Manner,
        text: str,
        form: Form,
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
        self._held: bytearray | None = None
        """Of a WAV that may be whole before its first byte is due."""
        if manner.encoding is AudioFormat.WAV and isinstance(form, AudioForm) and len(text) <= MAX_CHARS:
            self._held = bytearray()
        self._stopwatch = Stopwatch(asyncio.get_running_loop().time)
        self._stopwatch.mark("asked")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await while_connected(self._answer(send), receive)

    async def _answer(self, send: Send) -> None:
        try:
            with self._services.metrics.session(self._manner.edge) as count:
                last = await self._speak(send)
                count.done()
            await self._write(send, last, last=True)
        except CarillonError as error:
            if not self._begun:
                raise
            log.warning("speech broken off", extra={"code": error.code, "voice": self._manner.voice.id})
            words = self._form.failure(error)
            # Without a last piece the server breaks the connection, and the client sees that something is missing.
            if words is not None:
                await self._write(send, words, last=True)

    async def _speak(self, send: Send) -> bytes:
        """Send the audio as it comes; the last words are returned, to be sent once the place at the worker is free."""
        async with self._manner.opened(self._services.session_router) as session:
            with closing(self._manner.encoder(session)) as encoder:
                last = b""
                await session.send(Text(session="-", text=behind_thought(self._text, self._manner.options)))
                await session.send(Eos(session="-"))
                hold_s = float("inf") if self._held is None else self._services.settings.openai.wav_hold_s
                async with aclosing(told_when_due(session, hold_s)) as events:
                    async for event in events:
                        if event is None:
                            await self._release(send, session, encoder)
                        elif isinstance(event, AudioFrame) and (encoded := encoder.encode(event.audio)):
                            await self._send_audio(send, session, encoder, encoded)
                        elif isinstance(event, Error):
                            raise event.rebuilt()
                        elif isinstance(event, Done):
                            last = await self._end(send, session, encoder, event.ledger)
            return last

    async def _send_audio(self, send: Send, session: RoutedSession, encoder: StreamEncoder, encoded: bytes) -> None:
        if self._held is not None:
            self._held += encoded
            return
        await self._begin(send, session, encoder)
        await self._write(send, self._form.piece(encoded))

    async def _release(self, send: Send, session: RoutedSession, encoder: StreamEncoder) -> None:
        """The first byte is due, and there is more to come."""
        held, self._held = self._held, None
        if held:
            await self._send_audio(send, session, encoder, bytes(held))

    async def _begin(self, send: Send, session: RoutedSession, encoder: StreamEncoder) -> None:
        """Send the response's head, once: at the first byte of audio."""
        if self._begun:
            return
        self._begun = True
        self._stopwatch.mark("begun")
        first_audio_ms = self._stopwatch.between_ms("asked", "begun")
        headers = {
            "content-type": self._form.content_type(encoder.content_type),
            "cache-control": "no-store",
            "server-timing": f"queue;dur={session.queue_ms}, route;dur={session.route_ms}, "
            f"first_audio;dur={first_audio_ms}",
            "x-carillon-model": session.ready.model,
            "x-carillon-voice": self._manner.voice.id,
            "x-carillon-worker": session.worker.id,
            "x-carillon-sample-rate": str(session.ready.sample_rate_hz),
            **self._headers,
        }
        raw = [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": 200, "headers": raw})

    async def _end(self, send: Send, session: RoutedSession, encoder: StreamEncoder, ledger: Ledger) -> bytes:
        rest = b""
        if not ledger.samples:
            rest = encoder.encode(bytes(2 * round(SILENCE_S * session.ready.sample_rate_hz)))
        rest += encoder.finish()
        if self._held is not None:
            rest, self._held = with_length(bytes(self._held) + rest), None
        await self._begin(send, session, encoder)
        if rest:
            await self._write(send, self._form.piece(rest))
        ledger = ledger.model_copy(update={"first_audio_ms": self._stopwatch.between_ms("asked", "begun")})
        self._services.metrics.account(self._manner.edge, ledger)
        return self._form.end(self._text, ledger)

    async def _write(self, send: Send, body: bytes, *, last: bool = False) -> None:
        timeout_s = self._services.settings.session.slow_reader_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                await send({"type": "http.response.body", "body": body, "more_body": not last})
        except TimeoutError:
            raise SlowReader(f"the client took no audio for {timeout_s:g} s") from None


def _event(fields: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(fields, separators=(',', ':'))}\n\n".encode()
