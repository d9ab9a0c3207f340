"""`WS /tts/websocket`: contexts beside each other, each a session of its own.

Rules where their documents are silent, found in their SDK and in what the frameworks' plugins send:

* A context has the voice, the format and the speed of its first message; later ones add text. Their SDK ends a context
  with an empty transcript and defaults that need not be the same.
* `max_buffer_delay_ms: 0` means that each transcript is whole, whether or not a space ends it.
* Every context ends with one `done`, also one that never had a word, and one that was cancelled.
* `flush` speaks what there is, and is answered by `flush_done` with its number.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import ConfigDict, ValidationError
from starlette.websockets import WebSocket

from app.api.cartesia.wire import Generation, TheServices, api_key, chunk, error_body, manner_of, timestamps
from app.api.dialect_context import DialectContext
from app.api.dialect_socket import DialectStream, admitted, parse_object
from app.api.errors import invalid, status_of
from app.api.manner import Manner
from app.api.segment_timing import Words
from app.api.speaking import Delivery, FlushedAll, Sound
from app.errors import CarillonError, InvalidRequest, SessionIdle

router = APIRouter()


@router.websocket("/tts/websocket")
async def speak(websocket: WebSocket, services: TheServices) -> None:
    if (of_key := await admitted(websocket, services, api_key(websocket), error_body)) is not None:
        await websocket.accept()
        await Contexts(websocket, of_key).run()


class Message(Generation):
    """What a client sends; unknown fields are ignored."""

    model_config = ConfigDict(extra="ignore")

    cancel: bool | None = None
    flush: bool | None = None
    max_buffer_delay_ms: int | None = None

    @property
    def whole(self) -> bool:
        """Its transcript is a phrase, and no piece of one."""
        return self.max_buffer_delay_ms == 0


class Context(DialectContext):
    """A context under the name that its client gave it."""

    def __init__(self, id: str, stream: Contexts, manner: Manner, first: Message) -> None:
        super().__init__(stream, manner)
        self.id = id
        self._contexts = stream
        self._normalised = bool(first.use_normalized_timestamps)
        self._flushes_of_nothing = 0

    async def hear(self, message: Message, *, more: bool) -> None:
        """Take a message; after one with `more` False nothing follows."""
        if message.transcript:
            self.say(message.transcript, phrase=message.whole)
        if message.flush and not self.flush():
            self._flushes_of_nothing += 1
            await self._send(_flush_done(self._flushes_of_nothing))
        if not more:
            self.close()

    async def deliver(self, delivery: Delivery) -> None:
        match delivery:
            case Sound():
                await self._send(chunk(delivery))
            case Words():
                await self._send(timestamps(delivery, normalised=self._normalised))
            case FlushedAll():
                await self._send(_flush_done(delivery.number + self._flushes_of_nothing))
            case _:
                pass

    async def failed(self, error: CarillonError) -> None:
        if not isinstance(error, SessionIdle):  # a context that nothing more came for is done
            await self._send(failure(error))

    async def ended(self) -> None:
        self._contexts.forget(self)
        await self._send({"type": "done", "done": True, "status_code": 200})

    async def _send(self, fields: dict[str, Any]) -> None:
        await self.stream.socket.send({**fields, "context_id": self.id})


def _flush_done(number: int) -> dict[str, Any]:
    return {"type": "flush_done", "done": False, "flush_done": True, "flush_id": number, "status_code": 206}


def failure(error: CarillonError) -> dict[str, Any]:
    """An error as their socket says it."""
    body = error_body(status_of(error), error.message, code=error.code, param=error.param)
    return {"type": "error", "done": True, "error": f"{body['title']}: {error.message}", **body}


class Contexts(DialectStream):
    """The socket, and the contexts open on it."""

    def __init__(self, *fields: Any) -> None:
        super().__init__(*fields)
        self._contexts: dict[str, Context] = {}

    async def obey(self, raw: str | bytes) -> None:
        id: str | None = None
        try:
            fields = parse_object(raw)
            id = fields.get("context_id") if isinstance(fields.get("context_id"), str) else None
            await self._heed(Message.model_validate(fields), more=fields.get("continue") is True)
        except ValidationError as error:
            await self._refuse(invalid(error), id)
        except CarillonError as error:
            await self._refuse(error, id)

    async def _refuse(self, error: CarillonError, id: str | None) -> None:
        await self.socket.send({**failure(error), "context_id": id})

    async def _heed(self, message: Message, *, more: bool) -> None:
        id = message.context_id
        if not id:
            raise InvalidRequest("context_id: it is missing; give each context a name of its own", param="context_id")
        context = self._contexts.get(id)
        if message.cancel:
            if context is not None:
                context.break_off()
            return
        if context is not None and context.closing:
            if not message.transcript:
                return
            raise InvalidRequest("context_id: this context has ended; open another for more text", param="context_id")
        if context is None:
            if not message.transcript.strip() and not more:
                await self.socket.send({"type": "done", "done": True, "status_code": 200, "context_id": id})
                return
            context = await self._open(id, message)
        await context.hear(message, more=more)

    async def _open(self, id: str, message: Message) -> Context:
        most = self.services.settings.session.max_sessions_per_socket
        if len(self._contexts) >= most:
            raise InvalidRequest(
                f"{most} contexts are open on this socket, the most it may have; open another socket",
                param="context_id",
            )
        context = self._contexts[id] = Context(id, self, await manner_of(message, self.services), message)
        return context

    def forget(self, context: Context) -> None:
        """A context has ended."""
        if self._contexts.get(context.id) is context:
            del self._contexts[context.id]

    def last_words(self, error: CarillonError) -> dict[str, Any] | None:
        return failure(error)
