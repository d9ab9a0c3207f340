"""A WebSocket of another dialect: authentication, messages in and out, its tasks, and its end.

It knows neither what the messages say nor how sessions are spoken.
"""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from app.api.access import admit
from app.api.errors import error_response
from app.api.http_protocol import INTERNAL_ERROR, NORMAL_CLOSURE
from app.api.services import Services
from app.errors import CarillonError, InvalidRequest, Overloaded, RateLimited, SessionIdle, SlowReader
from app.platform.key_cache import key_ended
from app.speech.choices import Scope
from app.speech.field_errors import check_storable
from app.speech.protocol import MAX_MESSAGE_BYTES

POLICY_VIOLATION, TRY_AGAIN_LATER = 1008, 1013


async def admitted(
    websocket: WebSocket, services: Services, token: str | None, body_of: Callable[..., dict[str, Any]]
) -> Services | None:
    """The front door's parts as the key's holder sees them; None where the handshake was refused, with the reason."""
    try:
        return services.of(await admit(services, token, Scope.SPEAK))
    except CarillonError as error:
        await refuse(websocket, error, body_of)
        return None


async def refuse(websocket: WebSocket, error: CarillonError, body_of: Callable[..., dict[str, Any]]) -> None:
    """Refuse a handshake in the dialect's words."""
    await websocket.send_denial_response(error_response(error, body_of))


class DialectSocket:
    """An accepted socket. Any task may send; `app.main` ends it when the front door stops."""

    def __init__(self, websocket: WebSocket, services: Services) -> None:
        self._websocket = websocket
        self._services = services
        self._turn = asyncio.Lock()
        self.leaving = False
        """The front door stops, and nothing more is to be started."""
        self.speaking = 0
        """Sessions that are being spoken."""

    async def __aenter__(self) -> DialectSocket:
        self._services.sockets.add(self)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._services.sockets.discard(self)

    @property
    def busy(self) -> bool:
        """Whether something is being spoken that the client still waits for."""
        return self.speaking > 0

    def go_away(self, deadline_s: float) -> None:
        """These dialects have no message for it: what is spoken may finish, and nothing more is started."""
        self.leaving = True

    async def receive(self) -> str | bytes | None:
        """The next message; None once the client has gone."""
        message = await self._websocket.receive()
        if message["type"] == "websocket.disconnect":
            return None
        text = message.get("text")
        return text if text is not None else message.get("bytes") or b""

    async def send(self, message: dict[str, Any] | bytes) -> None:
        """Send JSON or bytes. Raises SlowReader where the client reads nothing; messages to a disconnected client are
        dropped."""
        timeout_s = self._services.settings.session.slow_reader_timeout_s
        try:
            async with self._turn, asyncio.timeout(timeout_s):
                if self._websocket.application_state is not WebSocketState.CONNECTED:
                    return
                if isinstance(message, bytes):
                    await self._websocket.send_bytes(message)
                else:
                    await self._websocket.send_text(json.dumps(message, separators=(",", ":")))
        except TimeoutError:
            raise SlowReader(f"the client read nothing for {timeout_s:g} s") from None
        except WebSocketDisconnect:
            return

    async def close(self, code: int = 1000, reason: str = "") -> None:
        if self._websocket.application_state is WebSocketState.CONNECTED:
            with suppress(WebSocketDisconnect):
                await self._websocket.close(code, reason)


class DialectStream(ABC):
    """What the sockets of all dialects do: obey messages until there are no more, or all has been said."""

    def __init__(self, websocket: WebSocket, services: Services) -> None:
        self.socket = DialectSocket(websocket, services)
        self.services = services
        self.idle_s = services.settings.session.idle_socket_s
        self._over = asyncio.Event()
        """All that was asked for has been said, and the socket is to be closed."""
        self._fault: CarillonError | None = None
        """That ended it and was reported to the client."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._group: asyncio.TaskGroup | None = None

    async def run(self, first: str | bytes | None = None) -> None:
        """Serve the client until it goes, its key ends, or all has been said. `first` has been received already."""
        code, reason = NORMAL_CLOSURE, ""
        async with self.socket:
            try:
                await self._serve(first)
            except* SlowReader as slow:
                code, reason = POLICY_VIOLATION, str(slow.exceptions[0])
            except* CarillonError as group:
                error = group.exceptions[0]
                assert isinstance(error, CarillonError)
                code, reason = close_code(error), error.message
                if (last := self.last_words(error)) is not None:
                    with suppress(SlowReader):
                        await self.socket.send(last)
            if self._fault is not None and code == NORMAL_CLOSURE:
                code, reason = close_code(self._fault), self._fault.message
            await self.socket.close(code, reason)

    def end(self, fault: CarillonError | None = None) -> None:
        """Close the socket, at its end or for a `fault` that was reported."""
        self._fault = fault
        self._over.set()

    async def _serve(self, first: str | bytes | None) -> None:
        key_id, ended = self.services.key_id or "", asyncio.Event()
        async with asyncio.TaskGroup() as self._group:
            reading, over = self.start(self._read(first)), self.start(self._wait_until_over())
            self.start(_until_ended(key_id, ended))
            try:
                with self.services.key_watch.held(key_id, ended.set):
                    await asyncio.wait({reading, over}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tuple(self._tasks):
                    task.cancel()

    async def _wait_until_over(self) -> None:
        await self._over.wait()

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task that ends with the socket."""
        assert self._group is not None
        task = self._group.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _read(self, first: str | bytes | None) -> None:
        if first is not None:
            await self.obey(first)
        while (raw := await self.receive()) is not None:
            await self.obey(raw)

    async def receive(self) -> str | bytes | None:
        """The next message; None once the client has gone. Raises SessionIdle where none comes while none is spoken."""
        while True:
            try:
                async with asyncio.timeout(self.idle_s):
                    return await self.socket.receive()
            except TimeoutError:
                if not self.socket.speaking:
                    raise SessionIdle(self.idle_reason) from None

    @property
    def idle_reason(self) -> str:
        """The error for a client that sent nothing for `idle_s`."""
        return f"nothing came on this socket for {self.idle_s:g} s; connect again when there is something to say"

    @abstractmethod
    async def obey(self, raw: str | bytes) -> None:
        """Do what a message says. Raises CarillonError where the socket cannot go on."""

    @abstractmethod
    def last_words(self, error: CarillonError) -> dict[str, Any] | None:
        """The message for an error before the socket is closed for it."""


async def _until_ended(key_id: str, ended: asyncio.Event) -> None:
    """Raises AuthenticationFailed when the key has ended."""
    await ended.wait()
    raise key_ended(key_id)


def close_code(error: CarillonError) -> int:
    """The code a socket is closed with: the client's fault, ours, or a lack of room."""
    if isinstance(error, Overloaded | RateLimited):
        return TRY_AGAIN_LATER
    ours = error.retryable and not isinstance(error, SessionIdle)
    return INTERNAL_ERROR if ours or type(error) is CarillonError else POLICY_VIOLATION


def parse_object(raw: str | bytes) -> dict[str, Any]:
    """A message as JSON's object. Raises InvalidRequest."""
    encoded = raw.encode() if isinstance(raw, str) else raw
    if len(encoded) > MAX_MESSAGE_BYTES:
        raise InvalidRequest(f"a message has {len(encoded)} bytes; at most {MAX_MESSAGE_BYTES}: send text in pieces")
    try:
        check_storable(encoded)
        message = json.loads(encoded)
    except (ValueError, RecursionError):
        raise InvalidRequest("a message is no JSON that can be read", param="message") from None
    if not isinstance(message, dict):
        raise InvalidRequest("a message must be an object, with its fields in braces", param="message")
    return message
