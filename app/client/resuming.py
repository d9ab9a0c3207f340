"""A client that survives the loss of its front door: that of `carillon say`.

When its connection breaks, or the server says that it stops or cannot go on for now, it connects to the next of its
addresses, resumes its session with the token, and sends again what had not arrived. Audio that was received already may
come again, from an earlier `sample_offset` on: it then replaces what was received from there. A session that no front
door knows any more, and of which nothing was heard, is started again.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from app.client.session import SESSION, Received, answer, connected, lost, read
from app.errors import CarillonError, UnknownSession, WorkerLost
from app.speech.protocol import (
    AudioFrame,
    Done,
    Eos,
    GoAway,
    Message,
    Pace,
    Ready,
    Resume,
    Resumed,
    Segment,
    Start,
    Text,
    Waiting,
    as_chosen,
)

PAUSES_S = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0)
"""Before each try to reconnect: half of the minute that a front door keeps a session for."""

MAX_IN_VAIN = 3
"""A session that ends with an error so often, and no audio between, has no place to go on at."""

BYTES_PER_SAMPLE = 2


class ResumingSession:
    """One session, on one connection after the other. Iterate it for audio and events; it ends after `done`."""

    def __init__(
        self, urls: Sequence[str], key: str | None, start: Start, socket: ClientConnection, ready: Ready
    ) -> None:
        self.ready = ready
        self.resumed = 0
        """How often it was resumed on another connection."""
        self._urls = itertools.cycle(urls)
        self._key = key
        self._start = start
        self._socket = socket
        self._text = ""
        self._ended = False
        self._received = 0
        self._over = False
        self._in_vain = 0
        """How often it was resumed after an error since audio last came."""
        self._sending = asyncio.Lock()
        """Held while it reconnects, so that what is sent again comes before what follows."""

    async def say(self, text: str) -> None:
        async with self._sending:
            self._text += text
            await self._send(Text(session=SESSION, text=text))

    async def end(self) -> None:
        """No more text follows."""
        async with self._sending:
            self._ended = True
            await self._send(Eos(session=SESSION))

    async def _send(self, message: Message) -> None:
        with suppress(ConnectionClosed):  # its reader reconnects, and finds what has not arrived
            await self._socket.send(as_chosen(message))

    def __aiter__(self) -> ResumingSession:
        return self

    async def __anext__(self) -> Received:
        """Raises what the front door reports, WorkerLost when none could be connected to in time.

        An error after which the same may be tried again is none yet: the session waits for that in its journal.
        """
        while not self._over:
            try:
                event = read(await self._socket.recv())
            except ConnectionClosed as closed:
                await self._resume(lost(closed))
                continue
            except CarillonError as error:
                if not error.retryable or not self._may_resume():
                    raise
                await self._resume(error)
                continue
            if isinstance(event, GoAway):
                await self._resume(WorkerLost("the front door is shutting down"))
            elif isinstance(event, AudioFrame | Waiting | Segment | Done):
                self._over = isinstance(event, Done)
                if isinstance(event, AudioFrame):
                    self._received = event.sample_offset + len(event.audio) // BYTES_PER_SAMPLE
                    self._in_vain = 0
                return event
        raise StopAsyncIteration

    def _may_resume(self) -> bool:
        """Whether to try again after an error: not for ever without a sound."""
        self._in_vain += 1
        return self._in_vain <= MAX_IN_VAIN

    async def _resume(self, why: CarillonError) -> None:
        """Go on elsewhere. Raises what makes that useless, or `why` no try has succeeded, or none can."""
        if self.ready.resume_token is None:
            raise why
        go_on = self._go_on
        async with self._sending:
            for pause_s in PAUSES_S:
                await self.aclose()
                await asyncio.sleep(pause_s)
                try:
                    await go_on(await connected(next(self._urls), self._key))
                except UnknownSession as error:
                    if self._received:
                        raise
                    why, go_on = error, self._begin_again
                except CarillonError as error:
                    if not error.retryable:
                        raise
                    why = error
                else:
                    self.resumed += 1
                    return
        raise why

    async def _go_on(self, socket: ClientConnection) -> None:
        self._socket = socket
        token = self.ready.resume_token or ""
        await self._send(Resume(session=SESSION, token=token, received_samples=self._received))
        resumed = await answer(socket, Resumed)
        self._received = resumed.sample_offset
        await self._send_rest(resumed.text_chars, ended=resumed.ended)

    async def _begin_again(self, socket: ClientConnection) -> None:
        self._socket = socket
        await self._send(self._start)
        self.ready = await answer(socket, Ready)
        await self._send_rest(0, ended=False)

    async def _send_rest(self, from_char: int, *, ended: bool) -> None:
        if rest := self._text[from_char:]:
            await self._send(Text(session=SESSION, text=rest))
        if self._ended and not ended:
            await self._send(Eos(session=SESSION))

    async def aclose(self) -> None:
        await self._socket.close()


@asynccontextmanager
async def open_resuming_session(
    urls: Sequence[str],
    key: str | None,
    *,
    voice: str,
    model: str | None = None,
    temperature: float | None = None,
    pace: Pace = "realtime",
) -> AsyncIterator[ResumingSession]:
    """A session with the first front door of `urls` that takes it; audio is PCM s16le mono.

    Raises what it refuses with, or WorkerLost when there is none.
    """
    start = Start(session=SESSION, voice=voice, model=model, temperature=temperature, pace=pace, resumable=True)
    socket, at = await _first(urls, key)
    async with socket:
        await socket.send(as_chosen(start))
        ready = await answer(socket, Ready)
        session = ResumingSession([*urls[at + 1 :], *urls[: at + 1]], key, start, socket, ready)
        try:
            yield session
        finally:
            await session.aclose()


async def _first(urls: Sequence[str], key: str | None) -> tuple[ClientConnection, int]:
    """A connection to the first that can be reached, and its number."""
    for number, url in enumerate(urls):
        try:
            return await connected(url, key), number
        except WorkerLost:
            if number == len(urls) - 1:
                raise
    raise WorkerLost("no front door's address is given")
