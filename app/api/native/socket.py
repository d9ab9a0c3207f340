"""`WS /v1/sessions`: the native protocol (app.speech.protocol), many sessions on one socket.

A key comes in the `Authorization` header, or, where a browser cannot set one, as a second subprotocol: `carillon.v1`
and `key.<key>`. A message that cannot be honoured is answered by an `error`; the socket and its other sessions go on.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter
from starlette.responses import PlainTextResponse
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from app.api.access import admit, bearer_token
from app.api.errors import error_response
from app.api.http_protocol import OUTLET
from app.api.native.client_session import ClientSession
from app.api.native.protocol_page import reference
from app.api.native.send_queue import Writer
from app.api.services import Services, TheServices
from app.errors import (
    AuthenticationFailed,
    CarillonError,
    InvalidRequest,
    Overloaded,
    SessionIdle,
    SessionInUse,
    SlowReader,
    UnknownSession,
)
from app.platform.key_cache import key_ended
from app.speech.choices import Scope
from app.speech.protocol import (
    SESSION_ID,
    Cancel,
    Credit,
    Eos,
    Error,
    Flush,
    GoAway,
    Ping,
    Pong,
    Resume,
    Start,
    Text,
    parse_client,
)

SUBPROTOCOL = "carillon.v1"
KEY_SUBPROTOCOL = "key."
MAX_CHANNEL = 65_535
OWN_CHANNEL = 0

POLICY_VIOLATION = 1008

MAX_READ_AGAIN_CHARS = 16 * 1024
"""Of a refused message, to find whose it is: reading more would hold the event loop."""

log = logging.getLogger(__name__)
router = APIRouter(tags=["sessions"])


@router.get("/v1/sessions/reference", response_class=PlainTextResponse)
async def read_reference() -> PlainTextResponse:
    """The protocol of `WS /v1/sessions`, in Markdown."""
    return PlainTextResponse(reference(), media_type="text/markdown; charset=utf-8")


@router.websocket("/v1/sessions")
async def open_sessions(websocket: WebSocket, services: TheServices) -> None:
    offered = websocket.scope.get("subprotocols", [])
    key = next((name.removeprefix(KEY_SUBPROTOCOL) for name in offered if name.startswith(KEY_SUBPROTOCOL)), None)
    try:
        holder = await admit(services, bearer_token(websocket) or key, Scope.SPEAK)
    except CarillonError as error:
        services.metrics.refused(error)
        await websocket.send_denial_response(error_response(error))
        return
    await websocket.accept(subprotocol=SUBPROTOCOL if SUBPROTOCOL in offered else None)
    await SessionSocket(websocket, services.of(holder), key_id=holder.id if holder else "").run()


class SessionSocket:
    """One client's socket and the sessions open on it."""

    def __init__(self, websocket: WebSocket, services: Services, *, key_id: str) -> None:
        self._websocket = websocket
        self._services = services
        self._key_id = key_id
        self._limits = services.settings.session
        self._writer = Writer(
            self._send,
            slow_reader_timeout_s=self._limits.slow_reader_timeout_s,
            outlet=websocket.scope.get("extensions", {}).get(OUTLET),
        )
        self._own = self._writer.queue(OWN_CHANNEL)
        self._sessions: dict[str, ClientSession] = {}
        self._channels = itertools.cycle(range(1, MAX_CHANNEL + 1))
        self._leaving = False
        self._told = True
        """That the server stops, if it does."""
        self._key_ended = asyncio.Event()

    async def run(self) -> None:
        """Serve the client until it goes, is asked to, or reads nothing for too long."""
        self._services.sockets.add(self)
        try:
            async with asyncio.TaskGroup() as group:
                writing = group.create_task(self._writer.run())
                watching = group.create_task(self._until_key_ends())
                speaking: set[asyncio.Task[None]] = set()
                try:
                    await self._read(group, speaking)
                finally:
                    for task in (writing, watching, *speaking):
                        task.cancel()
        except* SlowReader as slow:
            log.warning("slow reader given up", extra={"sessions": len(self._sessions)})
            await self._close(POLICY_VIOLATION, str(slow.exceptions[0]))
        except* (AuthenticationFailed, SessionIdle) as ended:
            await self._close(POLICY_VIOLATION, str(ended.exceptions[0]))
        except* WebSocketDisconnect:
            pass
        finally:
            self._services.sockets.discard(self)

    async def _until_key_ends(self) -> None:
        """Raises AuthenticationFailed then."""
        with self._services.key_watch.held(self._key_id, self._key_ended.set):
            await self._key_ended.wait()
            raise key_ended(self._key_id)

    def go_away(self, deadline_s: float) -> None:
        """Notify the client that the server stops, and start nothing more."""
        self._leaving = True
        self._told = False

        def goodbye() -> GoAway:
            self._told = True
            return GoAway(deadline_ms=round(deadline_s * 1000))

        self._own.post(goodbye)

    @property
    def busy(self) -> bool:
        """Whether the client is still to be notified, or a session is being spoken that cannot go on elsewhere."""
        return not self._told or any(not (session.over or session.resumable) for session in self._sessions.values())

    def _is_open(self, id: str) -> bool:
        return id in self._sessions and not self._sessions[id].over

    async def _read(self, group: asyncio.TaskGroup, speaking: set[asyncio.Task[None]]) -> None:
        while True:
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                return
            # A client that talks without reading the answers is not read either, till it does.
            await self._own.drained()
            try:
                self._obey(_parse(message), group, speaking)
            except CarillonError as error:
                self._services.metrics.refused(error)
                session, starts = _meant(message)
                closed = starts and session is not None and not self._is_open(session)
                self._own.post(Error.of(error, session=session, closed=closed))

    async def _receive(self) -> Mapping[str, Any]:
        """The next message. Raises SessionIdle where none comes, and no session is open."""
        idle_s = self._limits.idle_socket_s
        while True:
            try:
                async with asyncio.timeout(idle_s):
                    return await self._websocket.receive()
            except TimeoutError:
                if not self._sessions:
                    raise SessionIdle(f"nothing came on this socket for {idle_s:g} s; a `ping` keeps it open") from None

    def _obey(self, message: _ClientMessage, group: asyncio.TaskGroup, speaking: set[asyncio.Task[None]]) -> None:
        if isinstance(message, Ping):
            self._own.post(Pong(id=message.id))
            return
        try:
            if isinstance(message, Start | Resume):
                self._start(message, group, speaking)
            elif self._is_open(message.session):
                self._sessions[message.session].obey(message)
            else:
                raise UnknownSession(f"session {message.session!r} is not open on this socket; send `start` first")
        except CarillonError as error:
            self._services.metrics.refused(error)
            # A start that is refused leaves no session; one that repeats an id leaves the first session as it was.
            refused = isinstance(message, Start | Resume) and not isinstance(error, SessionInUse)
            self._own.post(Error.of(error, session=message.session, closed=refused))

    def _start(self, start: Start | Resume, group: asyncio.TaskGroup, speaking: set[asyncio.Task[None]]) -> None:
        most = self._limits.max_sessions_per_socket
        if self._is_open(start.session):
            raise SessionInUse(f"session {start.session!r} is open already; choose another id, or await its end")
        if self._leaving:
            raise Overloaded("this server is shutting down; connect again", retry_after_s=1)
        if len(self._sessions) >= most:
            raise InvalidRequest(f"{most} sessions are open on this socket, the most it may have; open another socket")
        channel = next(self._channels)
        queue = self._writer.queue(channel, window_samples=start.window_samples)
        session = ClientSession(start, self._services, queue, channel, key_id=self._key_id)
        self._sessions[start.session] = session

        def ended(task: asyncio.Task[None]) -> None:
            speaking.discard(task)
            if self._sessions.get(start.session) is session:
                del self._sessions[start.session]
            self._writer.close(channel)

        task = group.create_task(session.run(), name=f"session {start.session}")
        speaking.add(task)
        task.add_done_callback(ended)

    async def _send(self, item: str | bytes) -> None:
        if isinstance(item, str):
            await self._websocket.send_text(item)
        else:
            await self._websocket.send_bytes(item)

    async def _close(self, code: int, reason: str) -> None:
        if self._websocket.application_state is WebSocketState.CONNECTED:
            await self._websocket.close(code, reason)


def _parse(message: Mapping[str, Any]) -> _ClientMessage:
    text = message.get("text")
    if text is None:
        raise InvalidRequest("a binary message came where JSON text is due; clients send no audio")
    return parse_client(text)


def _meant(message: Mapping[str, Any]) -> tuple[str | None, bool]:
    """The session a message that cannot be obeyed is about, if it can be made out, and whether it was to begin it."""
    text = message.get("text") or ""
    if len(text) > MAX_READ_AGAIN_CHARS:
        return None, False
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        return None, False
    session = fields.get("session") if isinstance(fields, dict) else None
    if not isinstance(session, str) or not SESSION_ID.fullmatch(session):
        return None, False
    return session, fields.get("type") in ("start", "resume")


_ClientMessage = Start | Resume | Text | Flush | Eos | Cancel | Credit | Ping
