"""uvicorn's protocols with bounds that it has none of: on what is no body, on time, on connections, on one turn's work.

* A request's head may have MAX_HEAD_BYTES and MAX_HEADERS, and has to arrive within HEAD_S of its beginning.
* A body that is not read any more is awaited for UNREAD_BODY_S.
* What arrives is parsed in slices, with other work of the loop between them: 256 KB of the smallest WebSocket frames
  are 37,000 of them, which took 0.5 s as one piece (measured).
* A connection that goes beyond any of them is closed, with the status that says why where one can still be sent.
* A WebSocket ends with a close frame, its code and its reason, also where the application failed or forgot to.

How many connections there may be is counted by `app.api.connections`. What a request means is not known here.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections import deque
from collections.abc import Callable
from typing import Any

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.protocols.utils import get_remote_addr
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState

from app.api.connections import Connection, Connections
from app.platform.logs import Throttle

MAX_HEAD_BYTES = 32 * 1024
"""As nginx's (`large_client_header_buffers`)."""

MAX_HEADERS = 128
MAX_PIPELINED = 8

OVERHEAD_PER_BODY_BYTE = 8
"""A body in chunks of one byte has six bytes of framing for each."""

HEAD_S = 10.0
UNREAD_BODY_S = 30.0
PARTING_S = 1.0
LAST_READ_S = 30.0
"""For what is still on its way at a socket's normal end: who plays as it arrives reads in bursts."""

HTTP_SLICE_BYTES = 16 * 1024
SOCKET_SLICE_BYTES = 2 * 1024
"""At most 340 frames, which take 5 ms (measured)."""

NORMAL_CLOSURE, INTERNAL_ERROR, SERVICE_RESTART = 1000, 1011, 1012
OUTLET = "carillon.outlet"
"""The ASGI extension by which a WebSocket's application sends without waiting: the `BoundedWebSocket` itself."""

_TEXT, _BINARY = 0x81, 0x82
"""Opcodes of a message's only frame."""

MAX_REASON_BYTES = 123
"""Of a close frame (RFC 6455, 5.5): its payload has 125, of which the code takes two."""

HEALTH_PATHS = frozenset({"/healthz", "/readyz"})

log = logging.getLogger(__name__)
log.addFilter(Throttle(per_minute=60))


class _Refused(Exception):
    """The request goes beyond a bound; the parser passes it on as an error of its callback."""


class _Flow(FlowControl):
    """Flow control that also holds the transport while slices wait to be parsed."""

    def __init__(self, transport: asyncio.Transport, resumed: Callable[[], None]) -> None:
        super().__init__(transport)
        self._resumed = resumed
        self._held = False

    def hold(self) -> None:
        self._held = True
        self._transport.pause_reading()

    def release(self) -> None:
        self._held = False
        if not self.read_paused:
            self._transport.resume_reading()

    def resume_reading(self) -> None:
        if self.read_paused:
            self.read_paused = False
            if self._held:
                self._resumed()
            else:
                self._transport.resume_reading()


class BoundedHttp(HttpToolsProtocol):
    """HTTP/1 of one connection."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        connections: Connections,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.access_log = False  # it would have every query in it
        self._connections = connections
        self._connection: Connection | None = None
        self._slices: deque[bytes] = deque()
        self._pump_due = self._deaf = False
        self._overhead_bytes = self._body_bytes = 0
        self._refusal = (400, "Invalid HTTP request received.")
        self._head_timer: asyncio.TimerHandle | None = None
        self._body_timer: asyncio.TimerHandle | None = None

    # The connection's life.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        peer = get_remote_addr(transport)
        connection = Connection(peer[0] if peer else "", transport.abort)
        if not self._connections.enter(connection):
            transport.abort()
            return
        self._connection = connection
        super().connection_made(transport)
        self.flow = _Flow(transport, self._pump_soon)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._connection is None:
            return
        self._end_watch()
        self._connections.leave(self._connection)
        self._slices.clear()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self) -> None:
        connection, self._connection = self._connection, None
        assert connection is not None
        self._end_watch()
        self._connections.decided(connection)
        super().handle_websocket_upgrade()
        socket = self.transport.get_protocol()
        assert isinstance(socket, BoundedWebSocket)
        socket.when_lost = lambda: self._connections.leave(connection)

    def _end_watch(self) -> None:
        for timer in (self._head_timer, self._body_timer):
            if timer is not None:
                timer.cancel()
        self._head_timer = self._body_timer = None

    # What arrives.

    def data_received(self, data: bytes) -> None:
        if self._connection is None or self._deaf:
            return
        self._slices += (data[at : at + HTTP_SLICE_BYTES] for at in range(0, len(data), HTTP_SLICE_BYTES))
        if not self._pump_due:
            self._pump()

    def _pump_soon(self) -> None:
        if self._slices and not self._pump_due:
            self._pump_due = True
            self.loop.call_soon(self._pump)

    def _pump(self) -> None:
        """Parse one slice; the others have their turn when the loop has had one."""
        self._pump_due = False
        if self._slices and not self.transport.is_closing() and not self.flow.read_paused:
            self._parse(self._slices.popleft())
        if self.transport.is_closing() or self._deaf:
            self._slices.clear()
            return
        protocol = self.transport.get_protocol()
        assert isinstance(self.flow, _Flow)
        if protocol is not self:
            while self._slices:
                protocol.data_received(self._slices.popleft())  # type: ignore[attr-defined]
        elif self._slices:
            self.flow.hold()
            if not self.flow.read_paused:
                self._pump_soon()
        else:
            self.flow.release()

    def _parse(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        self._overhead_bytes += len(data)
        try:
            self.parser.feed_data(data)  # type: ignore[union-attr]
            if self._overhead_bytes > MAX_HEAD_BYTES + (1 + OVERHEAD_PER_BODY_BYTE) * self._body_bytes:
                self._refuse(431, f"the head of a request may have {MAX_HEAD_BYTES} bytes")
        except httptools.HttpParserUpgrade:
            if self._should_upgrade():
                self.handle_websocket_upgrade()
        except (httptools.HttpParserError, _Refused):
            status, reason = self._refusal
            log.info("request refused unread", extra={"status": status})
            self._close_with(status, reason)

    def _refuse(self, status: int, reason: str) -> None:
        self._refusal = status, reason
        raise _Refused

    def _close_with(self, status: int, reason: str) -> None:
        """Say why, unless an answer has begun; then end the connection, and hear no more of it."""
        if self._connection is not None:
            self._connections.undecided(self._connection)
        begins = self.cycle is None or (self._head_timer is not None and self.cycle.response_complete)
        if begins or not self.cycle.response_started:
            head = b"content-type: text/plain; charset=utf-8\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
            text = reason.encode()
            self.transport.write(STATUS_LINE[status] + head % len(text) + text)
        # What is still on its way would have the system reset the connection, and the answer would go with it.
        self._deaf = True
        self._slices.clear()
        self._end_watch()
        self.transport.resume_reading()
        self.transport.write_eof()
        self.loop.call_later(PARTING_S, self.transport.close)

    def on_message_begin(self) -> None:
        self._await_head()
        if len(self.pipeline) >= MAX_PIPELINED:
            self._refuse(429, f"{MAX_PIPELINED} requests wait on this connection; await their answers")
        self._overhead_bytes = self._body_bytes = 0
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(self.headers) >= MAX_HEADERS:
            self._refuse(431, f"a request may have {MAX_HEADERS} headers")
        super().on_header(name, value)

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > MAX_HEAD_BYTES:
            self._refuse(414, "the address is too long")

    def on_headers_complete(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        if self._connection is not None:
            self._connections.decided(self._connection)
        super().on_headers_complete()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        if self._connection is not None and self._connection.reserved and cycle.scope["path"] not in HEALTH_PATHS:
            app = _no_room
        super()._start_asgi_task(cycle, app)

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        super().on_body(body)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing() or self._connection is None or not self.cycle.response_complete:
            return
        if self.cycle.more_body:
            self._body_timer = self.loop.call_later(UNREAD_BODY_S, self._give_up_body, self.cycle)
        else:
            self._connections.undecided(self._connection)

    # Time.

    def _await_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_S, self._give_up_head)

    def _give_up_head(self) -> None:
        if not self.transport.is_closing() and not self._deaf:
            self._close_with(408, f"the head of the request did not arrive within {HEAD_S:g} s")

    def _give_up_body(self, cycle: Any) -> None:
        if cycle.more_body and not self.transport.is_closing():
            self.transport.close()


class BoundedWebSocket(WebSocketsSansIOProtocol):
    """A WebSocket, whose frames are parsed in slices, and whose every end has a code."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.when_lost: Callable[[], None] = lambda: None
        self._slices: deque[bytes] = deque()
        self._pump_due = False
        # uvicorn logs the address of every socket, its query and all.
        self.logger = _QUIET
        self.app = self._closing(self.app)

    def connection_lost(self, exc: Exception | None) -> None:
        self.when_lost()
        self._slices.clear()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self.handshake_initiated:
            super().data_received(data)  # the head, which has been parsed once
            return
        self._slices += (data[at : at + SOCKET_SLICE_BYTES] for at in range(0, len(data), SOCKET_SLICE_BYTES))
        if not self._pump_due:
            self._pump()

    def _pump(self) -> None:
        self._pump_due = False
        if self._slices and not self.disconnected:
            super().data_received(self._slices.popleft())
        if self.transport.is_closing():
            self._slices.clear()
        elif self._slices:
            self.transport.pause_reading()
            self._pump_due = True
            self.loop.call_soon(self._pump)
        elif not self.read_paused:
            self.transport.resume_reading()

    def _closing(self, app: Any) -> Any:
        """The application, with a close frame at its end unless it or the client has sent one."""

        async def closed(scope: Any, receive: Any, send: Any) -> None:
            scope["extensions"][OUTLET] = self
            code, reason = NORMAL_CLOSURE, ""
            try:
                await app(scope, receive, send)
            except Exception:
                code, reason = INTERNAL_ERROR, "something failed here; the server's log has the details"
                raise
            finally:
                if self._is_open:
                    await self.send({"type": "websocket.close", "code": code, "reason": reason})
                elif self.initial_response is not None:
                    self.handshake_complete = True  # refused in HTTP; uvicorn would log that as the application's fault

        return closed

    @property
    def _is_open(self) -> bool:
        return self.handshake_complete and not (self.close_sent or self.disconnected or self.transport.is_closing())

    def shutdown(self) -> None:
        if self._is_open:
            self.queue.put_nowait({"type": "websocket.disconnect", "code": SERVICE_RESTART})
            self.conn.send_close(SERVICE_RESTART, "this server is shutting down; connect again")
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.close_sent = True
        super().shutdown()

    async def send(self, message: Any) -> None:
        if message["type"] == "websocket.close" and self._is_open:
            reason = (message.get("reason") or "").encode()[:MAX_REASON_BYTES].decode(errors="ignore")
            message = {**message, "reason": reason}
            # Who reads nothing hears no reason either, and must not keep the connection.
            patience_s = LAST_READ_S if message.get("code", NORMAL_CLOSURE) == NORMAL_CLOSURE else PARTING_S
            self.loop.call_later(patience_s + self.close_timeout, self.transport.abort)
            try:
                async with asyncio.timeout(patience_s):
                    await self.writable.wait()
            except TimeoutError:
                self.transport.abort()
                return
        await super().send(message)

    @property
    def clear(self) -> bool:
        """Whether `send_now` may be called: the transport takes a message without waiting."""
        return self.writable.is_set() and self._is_open

    def send_now(self, message: str | bytes) -> None:
        """Send a message in one frame, where it is `clear`.

        All that ASGI has between an application and its socket costs a front door as much as the rest of a frame's way.
        """
        opcode, payload = (_TEXT, message.encode()) if isinstance(message, str) else (_BINARY, message)
        self.transport.write(_frame_head(opcode, len(payload)) + payload)

    async def receive(self) -> Any:
        message = await super().receive()
        if self._slices and not self.transport.is_closing():
            self.transport.pause_reading()
        return message


def _frame_head(opcode: int, size: int) -> bytes:
    """Of a whole message of a server's, which is not masked (RFC 6455, 5.2)."""
    if size < 126:
        return bytes((opcode, size))
    return struct.pack(">BBH", opcode, 126, size) if size < 1 << 16 else struct.pack(">BBQ", opcode, 127, size)


class _Unheard(logging.LoggerAdapter[logging.Logger]):
    """uvicorn's log, but for what it says of every socket."""

    @property
    def level(self) -> int:
        return logging.INFO

    def info(self, msg: object, *args: object, **kwargs: Any) -> None:
        pass


_QUIET: Any = _Unheard(logging.getLogger("uvicorn.error"), {})


async def _no_room(scope: Any, receive: Any, send: Any) -> None:
    """For those beyond the limit who ask for something else than the process's health."""
    text = b'{"error": {"message": "all connections are taken; try again in a moment", "type": "server_error", '
    text += b'"param": null, "code": "overloaded"}}'
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(text)).encode()),
        (b"retry-after", b"2"),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": text})
