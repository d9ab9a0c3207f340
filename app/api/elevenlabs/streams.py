"""`stream-input`, a socket that speaks one text, and `multi-stream-input`, with any number of contexts side by side.

Rules where their documents are silent, found in their SDK and in what the frameworks' plugins send:

* A `close_context` after a flush without text is the end of a turn: all of it is heard. Any other is a barge-in.
* A flush or a keep-alive for a context that there is not opens none; a message without a context is a keep-alive.
* Every context ends with `isFinal: true`, also one that never had a word.
* A key that is wrong, and a voice or a format that does not exist, refuse the handshake; a key may come in the first
  message instead, as browsers send it.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.websockets import WebSocket

from app.api.access import admit
from app.api.dialect_socket import (
    DialectSocket,
    DialectStream,
    admitted,
    close_code,
    parse_object,
    refuse,
)
from app.api.elevenlabs.context import Context, Terms, failure
from app.api.elevenlabs.wire import (
    EDGE,
    Reading,
    TheServices,
    VoiceSettings,
    api_key,
    encoding_of,
    error_body,
    model_meant,
    text_options,
)
from app.api.errors import invalid
from app.api.manner import Manner
from app.api.services import Services
from app.errors import AuthenticationFailed, CarillonError, InvalidRequest
from app.speech.choices import Scope

INACTIVITY_S, MAX_INACTIVITY_S = 20.0, 180.0
FIRST_MESSAGE_S = 10.0
"""Within which a key comes in the first message, where none came before."""


NO_KEY = "there is no API key; send it in the header xi-api-key, or as xi_api_key in the first message"

router = APIRouter()


class Address(Reading):
    """The query of both sockets."""

    model_config = ConfigDict(extra="ignore")

    model_id: str | None = Field(default=None, max_length=128)
    output_format: str | None = None
    inactivity_timeout: float = Field(default=INACTIVITY_S, gt=0)
    sync_alignment: bool = False
    auto_mode: bool = False

    @property
    def inactivity_s(self) -> float:
        return min(self.inactivity_timeout, MAX_INACTIVITY_S)


class Message(BaseModel):
    """What a client sends on either socket; anything else in it is ignored."""

    model_config = ConfigDict(extra="ignore")

    text: str | None = None
    context_id: str | None = Field(default=None, max_length=256)
    contextId: str | None = Field(default=None, max_length=256)
    flush: bool | None = None
    close_context: bool | None = None
    close_socket: bool | None = None
    voice_settings: VoiceSettings | None = None
    xi_api_key: str | None = Field(default=None, max_length=512)

    @property
    def context(self) -> str | None:
        return self.context_id or self.contextId

    @property
    def speed(self) -> float | None:
        return self.voice_settings.speed if self.voice_settings else None


@router.websocket("/v1/text-to-speech/{voice_id}/stream-input")
async def stream_input(websocket: WebSocket, voice_id: str, services: TheServices) -> None:
    await _serve(OneText, websocket, voice_id, services)


@router.websocket("/v1/text-to-speech/{voice_id}/multi-stream-input")
async def multi_stream_input(websocket: WebSocket, voice_id: str, services: TheServices) -> None:
    await _serve(ManyContexts, websocket, voice_id, services)


async def _serve(kind: type[Stream], websocket: WebSocket, voice_id: str, services: Services) -> None:
    """Refuse the handshake, or serve the socket. A key that comes in the first message is admitted by it."""
    token = api_key(websocket)
    if token is None and services.settings.auth:
        await websocket.accept()
        await _serve_by_first_message(kind, websocket, voice_id, services)
        return
    of_key = await admitted(websocket, services, token, error_body)
    if of_key is None:
        return
    try:
        address, terms = await _asked(websocket, voice_id, of_key)
    except CarillonError as error:
        await refuse(websocket, error, error_body)
        return
    await websocket.accept()
    await kind(websocket, of_key, address, terms).run()


async def _serve_by_first_message(kind: type[Stream], websocket: WebSocket, voice_id: str, services: Services) -> None:
    socket = DialectSocket(websocket, services)
    try:
        async with asyncio.timeout(FIRST_MESSAGE_S):
            first = await socket.receive()
        if first is None:
            return
        if not (token := message_of(first).xi_api_key):
            raise AuthenticationFailed(NO_KEY)
        of_key = services.of(await admit(services, token, Scope.SPEAK))
        address, terms = await _asked(websocket, voice_id, of_key)
    except (CarillonError, TimeoutError) as failed:
        error = AuthenticationFailed(NO_KEY) if isinstance(failed, TimeoutError) else failed
        await socket.send(failure(error))
        await socket.close(close_code(error), error.message)
        return
    await kind(websocket, of_key, address, terms).run(first)


async def _asked(websocket: WebSocket, voice_id: str, services: Services) -> tuple[Address, Terms]:
    """What the socket's address asks for. Raises InvalidRequest, UnknownVoice, UnknownModel."""
    try:
        address = Address.model_validate(dict(websocket.query_params))
    except ValidationError as error:
        raise invalid(error) from None
    return address, await _terms(address, voice_id, services)


def message_of(raw: str | bytes) -> Message:
    """Raises InvalidRequest."""
    try:
        return Message.model_validate(parse_object(raw))
    except ValidationError as error:
        raise invalid(error) from None


async def _terms(address: Address, voice_id: str, services: Services) -> Terms:
    voice = await services.resolver.find(voice_id, model_meant(address.model_id))
    options = text_options(services, voice, address)
    encoding = encoding_of(address.output_format)
    manner = Manner(edge=EDGE, voice=voice, encoding=encoding, options=options, timed=True)
    return Terms(manner, phrases=address.auto_mode, since_start=address.sync_alignment)


class Stream(DialectStream):
    """What both sockets share: messages as their fields."""

    def __init__(self, websocket: WebSocket, services: Services, address: Address, terms: Terms) -> None:
        super().__init__(websocket, services)
        self.terms = terms
        self.inactivity_s = address.inactivity_s

    async def obey(self, raw: str | bytes) -> None:
        await self.heed(message_of(raw))

    @abstractmethod
    async def heed(self, message: Message) -> None:
        """Do what a message says."""

    def last_words(self, error: CarillonError) -> dict[str, Any] | None:
        return failure(error)


class OneText(Stream):
    """`stream-input`: one text, which ends with an empty one."""

    def __init__(self, *fields: Any, **more: Any) -> None:
        super().__init__(*fields, **more)
        self.idle_s = self.inactivity_s
        self._context = Context(None, self.terms, self, lambda context: self.end(context.fault))

    @property
    def idle_reason(self) -> str:
        return f"no text came for {self.idle_s:g} s; end the input with an empty text, or send a space now and then"

    async def heed(self, message: Message) -> None:
        if self._context.closing:
            return
        self._context.settle(speed=message.speed)
        self._context.hear(message.text or "", flush=bool(message.flush))
        if message.text == "" or message.close_socket:
            self._context.close()


class ManyContexts(Stream):
    """`multi-stream-input`: contexts beside each other, each a session of its own."""

    def __init__(self, *fields: Any, **more: Any) -> None:
        super().__init__(*fields, **more)
        self._contexts: dict[str, Context] = {}
        self._clocks: dict[str, asyncio.TimerHandle] = {}
        self._ending = False

    async def run(self, first: str | bytes | None = None) -> None:
        try:
            await super().run(first)
        finally:
            for clock in self._clocks.values():
                clock.cancel()

    async def heed(self, message: Message) -> None:
        if message.close_socket:
            self._drain()
            return
        id = message.context or ("" if message.text and message.text.strip() else None)
        if id is None or self._ending:
            return  # it keeps the socket alive
        context = self._contexts.get(id)
        if message.text and not message.close_context and (context is None or context.closing):
            context = self._open(id)  # a name may be used again
        if context is not None:
            await self._serve_context(context, message)
        elif message.close_context:
            await Context(id, self.terms, self, self._forget).ended()

    def _open(self, id: str) -> Context:
        most = self.services.settings.session.max_sessions_per_socket
        if len(self._contexts) >= most:
            raise InvalidRequest(
                f"max_active_conversations: {most} contexts are open on this socket, the most it may have; close one, "
                "or open another socket",
                param="context_id",
            )
        context = self._contexts[id] = Context(id, self.terms, self, self._forget)
        return context

    async def _serve_context(self, context: Context, message: Message) -> None:
        try:
            if not context.closing:
                context.settle(speed=message.speed)
                context.hear(message.text or "", flush=bool(message.flush))
        except CarillonError as error:
            await context.failed(error)
        if message.close_context:
            if context.drains and not context.closing:
                context.close()
            else:
                context.break_off()
        self._wind(context)

    def _wind(self, context: Context) -> None:
        """Give a context its time again; without a message for so long it is heard to its end and closed."""
        assert context.id is not None
        if clock := self._clocks.pop(context.id, None):
            clock.cancel()
        if not context.closing:
            loop = asyncio.get_running_loop()
            self._clocks[context.id] = loop.call_later(self.inactivity_s, context.close)

    def _forget(self, context: Context) -> None:
        assert context.id is not None
        if self._contexts.get(context.id) is context:
            del self._contexts[context.id]
            if clock := self._clocks.pop(context.id, None):
                clock.cancel()
        if self._ending and not self._contexts:
            self.end()

    def _drain(self) -> None:
        """Contexts that were flushed are heard to their end; the others are broken off."""
        self._ending = True
        for context in list(self._contexts.values()):
            if context.drains:
                context.close()
            else:
                context.break_off()
        if not self._contexts:
            self.end()
