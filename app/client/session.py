"""A client of the session protocol: what `carillon say` and `carillon bench speech` speak with a front door.

It shows how little a client needs: a socket, JSON one way, JSON and audio frames the other.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from app.client.refusals import key_refused, unreachable
from app.errors import CarillonError, DeadlineExceeded, PermissionDenied, WorkerLost
from app.speech.protocol import (
    SERVER_MESSAGES,
    AudioFrame,
    Cancel,
    Cancelled,
    Done,
    Eos,
    Error,
    Flushed,
    Message,
    Pace,
    Ready,
    Segment,
    Start,
    Text,
    Turn,
    Waiting,
    as_chosen,
    parse_peer,
)

SESSION = "1"
CONNECT_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 1.0
READY_TIMEOUT_S = 45.0
"""Beyond what a front door allows itself: waiting for room, connecting, loading an adapter."""

Received = AudioFrame | Waiting | Segment | Flushed | Cancelled | Done


Answer = TypeVar("Answer", bound=Message)


class SpeechSession:
    """One session on a socket of its own. Iterate it for audio and events; it ends after `done`."""

    def __init__(self, socket: ClientConnection, ready: Ready) -> None:
        self.ready = ready
        self._socket = socket
        self._over = False

    async def say(self, text: str, *, turn: Turn | None = None) -> None:
        await self._send(Text(session=SESSION, text=text, turn=turn))

    async def end(self) -> None:
        """No more text follows."""
        await self._send(Eos(session=SESSION))

    async def cancel(self, played_samples: int | None = None) -> None:
        await self._send(Cancel(session=SESSION, played_samples=played_samples))

    def __aiter__(self) -> SpeechSession:
        return self

    async def __anext__(self) -> Received:
        """Raises what the front door reports, WorkerLost when the connection breaks."""
        if self._over:
            raise StopAsyncIteration
        while True:
            event = await receive(self._socket)
            if isinstance(event, AudioFrame | Waiting | Segment | Flushed | Cancelled | Done):
                self._over = isinstance(event, Done)
                return event

    async def _send(self, message: Message) -> None:
        try:
            await self._socket.send(as_chosen(message))
        except ConnectionClosed as closed:
            raise lost(closed) from None


@asynccontextmanager
async def open_session(
    url: str,
    key: str | None,
    *,
    voice: str,
    model: str | None = None,
    temperature: float | None = None,
    pace: Pace = "realtime",
    cookie: str | None = None,
) -> AsyncIterator[SpeechSession]:
    """A session with the front door at `url` (http://…), ready to take text; audio is PCM s16le mono.

    Raises what the front door refuses with, or WorkerLost when there is none at `url`.
    """
    async with await connected(url, key, cookie=cookie) as socket:
        start = Start(session=SESSION, voice=voice, model=model, temperature=temperature, pace=pace)
        await socket.send(as_chosen(start))
        yield SpeechSession(socket, await answer(socket, Ready))


async def connected(url: str, key: str | None, *, cookie: str | None = None) -> ClientConnection:
    """A socket to the front door at `url`, with a key or a sign-in cookie.

    Raises AuthenticationFailed, PermissionDenied or WorkerLost.
    """
    address = url.rstrip("/").replace("http", "ws", 1) + "/v1/sessions"
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    if cookie:
        headers["Cookie"] = cookie
    try:
        return await connect(
            address,
            additional_headers=headers,
            compression=None,
            proxy=None,
            open_timeout=CONNECT_TIMEOUT_S,
            close_timeout=CLOSE_TIMEOUT_S,
        )
    except InvalidStatus as refused:
        if refused.response.status_code in (401, 403):
            raise _key_refused(url, key, refused) from None
        raise unreachable(url, f"HTTP {refused.response.status_code} where a WebSocket is due") from None
    except InvalidHandshake:
        raise unreachable(url, "what answers there is no front door") from None
    except TimeoutError:
        raise unreachable(url, "no answer in time") from None
    except OSError as error:
        why = "nothing listens there" if isinstance(error, ConnectionRefusedError) else error.strerror
        raise unreachable(url, why or "nothing listens there") from None


def _key_refused(url: str, key: str | None, refused: InvalidStatus) -> CarillonError:
    """The front door's own words where the key is a good one that lacks a scope."""
    try:
        error = json.loads(refused.response.body or b"")["error"]
        refusal = CarillonError.from_wire(error["code"], error["message"])
    except (ValueError, KeyError, TypeError):
        return key_refused(url, key)
    return refusal if isinstance(refusal, PermissionDenied) else key_refused(url, key)


async def answer(socket: ClientConnection, kind: type[Answer]) -> Answer:
    """The first message of `kind`. Raises what is refused with, or DeadlineExceeded."""
    try:
        async with asyncio.timeout(READY_TIMEOUT_S):
            while not isinstance(event := await receive(socket), kind):
                pass
    except TimeoutError:
        raise DeadlineExceeded(f"the front door was not ready within {READY_TIMEOUT_S:g} s") from None
    return event


async def receive(socket: ClientConnection) -> Any:
    """What the front door says next. Raises the error it reports, or WorkerLost when the connection is broken."""
    try:
        return read(await socket.recv())
    except ConnectionClosed as closed:
        raise lost(closed) from None


def read(raw: str | bytes) -> Any:
    """What the front door says. Raises the error it reports."""
    event = AudioFrame.unpack(raw) if isinstance(raw, bytes) else parse_peer(SERVER_MESSAGES, raw)
    if isinstance(event, Error):
        raise event.rebuilt()
    return event


def lost(closed: ConnectionClosed) -> WorkerLost:
    code = closed.rcvd.code if closed.rcvd else 1006
    return WorkerLost(f"the front door closed the connection (code {code}) before the speech was done")
