"""The bot's voice: sessions with the front door, opened with the caller's own key as any client would.

One answer is one session. It is opened while the person still speaks, so that the first token of the answer finds it
ready. Nothing here is private to the front door: the talk could run on any other machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import httpx

from app.client.session import Received, SpeechSession, connected, open_session
from app.errors import CarillonError, UnknownVoice, WorkerLost
from app.speech.protocol import Done, Turn

STALE_S = 20.0
"""A session that was opened so long ago and not used is left for a fresh one: it will soon be ended as idle."""

LEAVE_TIMEOUT_S = 2.0


@dataclass(frozen=True)
class FrontDoor:
    """Where the front door is, and as whom it is asked: by a key or by a browser's cookie, or by neither."""

    url: str
    key: str | None = None
    cookie: str | None = None

    async def admits(self) -> None:
        """Raises AuthenticationFailed, PermissionDenied or WorkerLost where sessions would be refused."""
        socket = await connected(self.url, self.key, cookie=self.cookie)
        await socket.close()

    async def first_voice(self) -> str:
        """The name of a voice that can be spoken with. Raises UnknownVoice where there is none, WorkerLost."""
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        if self.cookie:
            headers["Cookie"] = self.cookie
        try:
            async with httpx.AsyncClient(base_url=self.url, headers=headers, trust_env=False) as http:
                voices = (await http.get("/v1/audio/voices")).raise_for_status().json()["voices"]
        except (httpx.HTTPError, ValueError, KeyError) as error:
            raise WorkerLost(f"the voices cannot be listed ({type(error).__name__}); name one") from None
        if not voices:
            raise UnknownVoice("no voice can speak yet, for no worker is ready; try again soon", param="voice")
        return voices[0]["name"]


class Utterance:
    """One answer being spoken."""

    def __init__(self, session: SpeechSession, stack: AsyncExitStack) -> None:
        self.opened_at = time.monotonic()
        self._session = session
        self._stack = stack
        self._done = False

    async def say(self, text: str, *, turn: Turn | None = None) -> None:
        await self._session.say(text, turn=turn)

    async def end(self) -> None:
        """No more text follows."""
        await self._session.end()

    async def events(self) -> AsyncIterator[Received]:
        """Audio and segments, to `done`. Raises what the front door reports."""
        async for event in self._session:
            self._done = isinstance(event, Done)
            yield event

    async def leave(self) -> None:
        """Speak no more; the worker is told at once."""
        try:
            if not self._done:
                with contextlib.suppress(CarillonError, TimeoutError):
                    async with asyncio.timeout(LEAVE_TIMEOUT_S):
                        await self._session.cancel()
                        await self._session.end()
                        async for _ in self._session:
                            pass
        finally:
            await self._stack.aclose()


class Speaker:
    """Opens utterances with one voice."""

    def __init__(self, door: FrontDoor, *, voice: str) -> None:
        self.voice = voice
        self._door = door
        self._next: asyncio.Task[Utterance] | None = None
        self._leaving: set[asyncio.Task[None]] = set()

    def prepare(self) -> None:
        """An answer will be wanted soon."""
        if self._next is not None and self._next.done():
            if not self._next.cancelled() and self._next.exception() is None:
                if time.monotonic() - self._next.result().opened_at < STALE_S:
                    return
                self.leave(self._next.result())
            self._next = None
        if self._next is None:
            self._next = asyncio.create_task(self._open())

    async def take(self) -> Utterance:
        """The session that was prepared, or a new one. Raises CarillonError."""
        self.prepare()
        assert self._next
        opening = self._next
        utterance = await asyncio.shield(opening)
        self._next = None
        return utterance

    def leave(self, utterance: Utterance) -> None:
        """Be done with an utterance, without waiting."""
        leaving = asyncio.create_task(utterance.leave())
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)

    async def aclose(self) -> None:
        if self._next is not None:
            if self._next.done() and not self._next.cancelled() and self._next.exception() is None:
                self.leave(self._next.result())
            else:
                self._next.cancel()
                await asyncio.gather(self._next, return_exceptions=True)
        await asyncio.gather(*self._leaving, return_exceptions=True)

    async def _open(self) -> Utterance:
        async with AsyncExitStack() as stack:
            session = await stack.enter_async_context(
                open_session(self._door.url, self._door.key, voice=self.voice, cookie=self._door.cookie)
            )
            return Utterance(session, stack.pop_all())
