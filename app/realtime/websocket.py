"""A WebSocket to a worker, or its server side, with backpressure both ways: received messages wait for the one reader,
sent ones until the peer reads.

picows reads and writes the frames: with `websockets`, which does so in Python, they took a third of what a frame of
audio cost a front door (`carillon bench fleet`). The kernel watches over the other end, with probes and their
acknowledgements. The wire knows neither messages nor deadlines.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Mapping

from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

MAX_FRAME_BYTES = 1024 * 1024
MAX_WAITING, FEW_WAITING = 16, 4
"""Messages that wait for the reader before no more is read, and that may be left when reading goes on: a slow listener
makes its worker wait, and fills no memory."""

PROBE_INTERVAL_S = 5
UNACKNOWLEDGED_TIMEOUT_S = 10
"""A machine that has vanished takes nothing any more; one that is merely busy still acknowledges."""

CLOSE_TIMEOUT_S = 1.0


class WireClosed(Exception):
    """The connection is gone, and all that came by it has been read."""


class Wire(WSListener):
    """One connection; `connect` makes it, or a server hands it out for one that has come."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket: WSTransport | None = None
        self._waiting: deque[str | bytes] = deque()
        self._reader: asyncio.Future[None] | None = None
        self._parts: list[bytes] = []
        self._kind = WSMsgType.BINARY
        self._held_back = False
        self._writable = asyncio.Event()
        self._writable.set()
        self._over = False

    @classmethod
    async def connect(cls, url: str, headers: Mapping[str, str], *, timeout_s: float) -> Wire:
        """Raises OSError, also where the other end is gone before the two have shaken hands, WSHandshakeError or
        TimeoutError."""
        wire = cls()
        try:
            await ws_connect(
                lambda: wire,
                url,
                extra_headers=headers,
                max_frame_size=MAX_FRAME_BYTES,
                max_redirects=0,
                websocket_handshake_timeout=timeout_s,
            )
            if (
                wire._socket is None
            ):  # picows does not report it: it takes the end of the connection for that of the handshake
                raise ConnectionResetError("the connection ended within its handshake")
        except BaseException:
            wire.abort()
            raise
        return wire

    async def receive(self) -> str | bytes:
        """The next message: text or bytes. Raises WireClosed."""
        while not self._waiting:
            if self._over:
                raise WireClosed("the connection is closed")
            self._reader = self._loop.create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        if self._held_back and len(self._waiting) <= FEW_WAITING and not self._over:
            self._held_back = False
            if self._socket is not None:
                self._socket.underlying_transport.resume_reading()
        return self._waiting.popleft()

    def send(self, message: str | bytes) -> None:
        """Send a message, without waiting; it goes nowhere once the connection is gone."""
        if self._socket is not None:
            self._socket.send(WSMsgType.TEXT if isinstance(message, str) else WSMsgType.BINARY, message)

    @property
    def clogged(self) -> bool:
        """Whether so much waits to be sent that the sender should await `cleared`."""
        return not self._writable.is_set()

    async def cleared(self) -> None:
        await self._writable.wait()

    async def until_closed(self) -> None:
        """Wait for the end of a connection that was made."""
        assert self._socket is not None
        await self._socket.wait_disconnected()

    async def close(self) -> None:
        """Close with a handshake; what has not gone out after a second never will."""
        if self._socket is None or self._over:
            return
        self._socket.send_close(WSCloseCode.OK)
        self._socket.disconnect()
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._socket.wait_disconnected()
        except TimeoutError:
            self.abort()

    def abort(self) -> None:
        """Break the connection without a handshake; what was received before can still be read."""
        if self._socket is not None:
            self._socket.disconnect(graceful=False)
        self._end()

    def _end(self) -> None:
        self._over = True
        self._writable.set()
        self._wake()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    # Callbacks of picows.

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._socket = transport
        if self._over:  # the caller is gone
            transport.disconnect(graceful=False)
            return
        _probe(transport.underlying_transport.get_extra_info("socket"))

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._end()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        kind = frame.msg_type
        if kind is WSMsgType.CLOSE:
            transport.send_close(WSCloseCode.OK)
            transport.disconnect()
            return
        if kind is WSMsgType.PONG:
            return
        if frame.fin and not self._parts:
            message = frame.get_payload_as_utf8_text() if kind is WSMsgType.TEXT else frame.get_payload_as_bytes()
        else:
            whole = self._joined(kind, frame)
            if whole is None:
                return
            message = whole
        self._waiting.append(message)
        self._wake()
        if len(self._waiting) >= MAX_WAITING and not self._held_back:
            self._held_back = True
            transport.underlying_transport.pause_reading()

    def _joined(self, kind: WSMsgType, frame: WSFrame) -> str | bytes | None:
        """A message that comes in several frames, with its last one."""
        if kind is not WSMsgType.CONTINUATION:
            self._kind = kind
        self._parts.append(frame.get_payload_as_bytes())
        if not frame.fin:
            return None
        message = b"".join(self._parts)
        self._parts.clear()
        return message.decode() if self._kind is WSMsgType.TEXT else message


def _probe(peer: socket.socket) -> None:
    """Have the kernel break a connection whose other end acknowledges nothing, neither data nor its probes.

    A message would show less: its answer waits behind all the audio that a slow listener has to come.
    """
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_KEEPIDLE", PROBE_INTERVAL_S),
        ("TCP_KEEPINTVL", PROBE_INTERVAL_S),
        ("TCP_USER_TIMEOUT", UNACKNOWLEDGED_TIMEOUT_S * 1000),
    ):
        if hasattr(socket, option):  # the last is Linux's only
            peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
