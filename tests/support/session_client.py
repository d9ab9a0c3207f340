"""Clients for tests: of the session protocol, which sorts what the server says by session, and of one call."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import httpx
from websockets.asyncio.client import ClientConnection, connect

from app.speech.protocol import SERVER_MESSAGES, AudioFrame, Done, Error, Message, Ready, parse
from tests.support.deadlines import HANG_S
from tests.support.fake_worker import tone

if TYPE_CHECKING:
    from tests.api.conftest import House

Kind = TypeVar("Kind")

SPEECH = "/v1/audio/speech"


class SessionsClient:
    """Reads in the background; `until` waits for a message of a kind, of one session or of the socket (None)."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.messages: dict[str | None, list[Message]] = defaultdict(list)
        self.frames: dict[str | None, list[AudioFrame]] = defaultdict(list)
        self.log: list[Message | AudioFrame] = []
        self._channels: dict[int, str] = {}
        self._news = asyncio.Condition()

    async def read(self) -> None:
        async for raw in self.socket:
            async with self._news:
                self._sort(raw)
                self._news.notify_all()

    def _sort(self, raw: str | bytes) -> None:
        if isinstance(raw, bytes):
            frame = AudioFrame.unpack(raw)
            self.frames[self._channels[frame.channel]].append(frame)
            self.log.append(frame)
            return
        message = parse(SERVER_MESSAGES, raw)
        self.log.append(message)
        if isinstance(message, Ready):
            self._channels[message.channel] = message.session
        self.messages[getattr(message, "session", None)].append(message)

    async def send(self, type: str, session: str | None = None, **fields: Any) -> None:
        named = {"session": session} if session is not None else {}
        await self.socket.send(json.dumps({"type": type, **named, **fields}))

    async def say(self, session: str, text: str, **start: Any) -> None:
        """Start a session, speak all of `text` and announce its end."""
        await self.send("start", session, **{"voice": "slt", **start})
        await self.send("text", session, text=text)
        await self.send("eos", session)

    async def until(self, kind: type[Kind], session: str | None = None, *, count: int = 1) -> Kind:
        """The `count`th message of `kind` in `session`, once it is there."""
        async with asyncio.timeout(HANG_S), self._news:
            await self._news.wait_for(lambda: len(self.all(kind, session)) >= count)
        return self.all(kind, session)[count - 1]

    async def until_frames(self, session: str, count: int) -> None:
        async with asyncio.timeout(HANG_S), self._news:
            await self._news.wait_for(lambda: len(self.frames[session]) >= count)

    def all(self, kind: type[Kind], session: str | None = None) -> list[Kind]:
        return [message for message in self.messages[session] if isinstance(message, kind)]

    async def refusal(self, session: str | None = None, *, count: int = 1) -> Error:
        return await self.until(Error, session, count=count)

    def heard(self, session: str) -> bytes:
        return b"".join(frame.audio for frame in self.frames[session])


@asynccontextmanager
async def sessions_client(url: str, key: str, **options: Any) -> AsyncIterator[SessionsClient]:
    headers = {"Authorization": f"Bearer {key}"}
    async with connect(url, additional_headers=headers, compression=None, proxy=None, **options) as socket:
        client = SessionsClient(socket)
        reading = asyncio.create_task(client.read())
        try:
            yield client
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)


async def speak(house: House, text: str = "Hi.", **fields: object) -> httpx.Response:
    body = {"model": "standin", "voice": "slt", "input": text, "response_format": "pcm", **fields}
    return await house.http.post(SPEECH, json={name: value for name, value in body.items() if value is not None})


def error_of(answer: httpx.Response) -> dict[str, str]:
    assert answer.json().keys() == {"error"}
    error = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    return error


def spoken(text: str) -> bytes:
    return b"".join(map(tone, text))


async def still_speaks(client: SessionsClient, session: str = "after") -> bool:
    """The socket is alive: a new session is spoken from start to end."""
    await client.say(session, "Still here.", pace="unpaced")
    await client.until(Done, session)
    return client.heard(session) == spoken("Still here.")
