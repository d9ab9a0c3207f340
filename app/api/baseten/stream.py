"""`WS /baseten` and `POST /baseten`: what LiveKit's plugin for Baseten's Orpheus sends to its `model_endpoint`.

On the socket the first message is JSON that names a voice, then come pieces of text, and `__END__`; the answer is PCM
s16le, 24 kHz, in binary messages, and the socket closes at its end. `max_tokens` and `buffer_size` are ignored: a text
is cut by the fleet. An error is a JSON message before the close.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from pydantic import ConfigDict, Field, ValidationError
from starlette.requests import HTTPConnection
from starlette.websockets import WebSocket

from app.api.access import bearer_token, requires
from app.api.bodies import read_json
from app.api.dialect_context import DialectContext
from app.api.dialect_socket import DialectStream, admitted, parse_object
from app.api.dialects import MAX_BODY_BYTES_PER_CHAR, check_text
from app.api.errors import error_body, invalid, status_of
from app.api.manner import Manner
from app.api.services import Services, services_by
from app.api.speaking import Delivery, Sound
from app.api.speech_response import AudioForm, SpeechResponse
from app.errors import CarillonError
from app.platform.codecs import Encoding
from app.speech.choices import Scope
from app.speech.text.options import TextFields

EDGE = "baseten"
END = "__END__"
RATE_HZ = 24_000

router = APIRouter(include_in_schema=False)


def api_key(connection: HTTPConnection) -> str | None:
    """The key of an `Authorization: Api-Key …` header."""
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "api-key" else bearer_token(connection)


TheServices = Annotated[Services, Depends(services_by(api_key))]
"""The front door's parts as the holder of that key sees them."""


class Metadata(TextFields):
    """The first message, and the body of a POST; other fields are ignored."""

    model_config = ConfigDict(extra="ignore")

    voice: str = Field(default="tara", max_length=128)
    prompt: str = ""
    language: str | None = Field(default=None, max_length=16)
    temperature: float | None = Field(default=None, ge=0.0, le=2.0)


async def _manner(metadata: Metadata, services: Services) -> Manner:
    voice = await services.resolver.find(metadata.voice, None)
    options = metadata.text_options(language=voice.language, operator=services.settings.session.text_options)
    encoding = Encoding("pcm", RATE_HZ)
    return Manner(edge=EDGE, voice=voice, encoding=encoding, options=options, temperature=metadata.temperature)


@router.post("/baseten")
async def speak_once(
    request: Request, services: TheServices, _: Annotated[Any, Depends(requires(Scope.SPEAK, api_key))]
) -> Response:
    """Speak a `prompt`; the audio is sent as it is made."""
    limit = services.settings.session.max_input_chars
    wanted = await read_json(request, Metadata, max_bytes=4096 + limit * MAX_BODY_BYTES_PER_CHAR)
    check_text(wanted.prompt, at_most=limit, param="prompt")
    manner = await _manner(wanted, services)
    return SpeechResponse(services, manner, wanted.prompt, AudioForm())


@router.websocket("/baseten")
async def speak(websocket: WebSocket, services: TheServices) -> None:
    if (of_key := await admitted(websocket, services, api_key(websocket), error_body)) is not None:
        await websocket.accept()
        await OneText(websocket, of_key).run()


class Context(DialectContext):
    async def deliver(self, delivery: Delivery) -> None:
        if isinstance(delivery, Sound):
            await self.stream.socket.send(delivery.audio)

    async def failed(self, error: CarillonError) -> None:
        await self.stream.socket.send(failure(error))

    async def ended(self) -> None:
        self.stream.end(self.fault)


def failure(error: CarillonError) -> dict[str, Any]:
    return error_body(status_of(error), error.message, code=error.code, param=error.param)


class OneText(DialectStream):
    """The socket: one text."""

    def __init__(self, websocket: WebSocket, services: Services) -> None:
        super().__init__(websocket, services)
        self._context: Context | None = None

    async def obey(self, raw: str | bytes) -> None:
        if self._context is None:
            try:
                metadata = Metadata.model_validate(parse_object(raw))
            except ValidationError as error:
                raise invalid(error) from None
            self._context = Context(self, await _manner(metadata, self.services))
        elif not self._context.closing:
            text = raw if isinstance(raw, str) else raw.decode(errors="replace")
            if text == END:
                self._context.close()
            else:
                self._context.say(text)

    def last_words(self, error: CarillonError) -> dict[str, Any] | None:
        return failure(error)
