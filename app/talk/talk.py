"""The talk of one front door: its ears and its mind, and the conversations that are open.

It knows no transport. It is a client of the front door: the session API admits each caller by the key they show.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from app.errors import CarillonError, Overloaded
from app.platform.settings import ANY_HOST, Settings
from app.talk.conversation import Conversation, Tell
from app.talk.ears import Ears, ears_of
from app.talk.mind import Mind, mind_of
from app.talk.speaker import FrontDoor, Speaker
from app.talk.speech_detector import SpeechDetector

log = logging.getLogger(__name__)


class Talk:
    """Opens conversations."""

    def __init__(self, settings: Settings, *, ears: Ears, mind: Mind) -> None:
        self.settings = settings.talk
        self._any_host = settings.api_host in ANY_HOST
        self._ears, self._mind = ears, mind
        self._open: set[Conversation] = set()
        self._reserved = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def door(self, server: tuple[str, int], *, key: str | None, cookie: str | None) -> FrontDoor:
        """This front door, as it is reached from here; `server` is the address that the caller's connection came to."""
        host, port = server
        if self._any_host:
            host = "127.0.0.1"
        return FrontDoor(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}", key, cookie)

    @asynccontextmanager
    async def conversation(
        self, door: FrontDoor, *, voice: str | None, tell: Tell, lead_samples: int = 0
    ) -> AsyncIterator[Conversation]:
        """A conversation that is to be run. Raises Overloaded where too many talk, else what the session API refuses
        this caller with."""
        most = self.settings.max_conversations
        if self._reserved >= most:
            raise Overloaded(f"{most} conversations are open here, the most there may be", retry_after_s=30)
        self._reserved += 1
        try:
            await door.admits()
            conversation = Conversation(
                self.settings,
                ears=self._ears,
                mind=self._mind,
                speaker=Speaker(door, voice=voice or self.settings.voice or await door.first_voice()),
                detector=await asyncio.to_thread(SpeechDetector),
                tell=tell,
                lead_samples=lead_samples,
            )
            self._open.add(conversation)
            self.spawn(self._start_ears(tell))
            try:
                yield conversation
            finally:
                self._open.discard(conversation)
        finally:
            self._reserved -= 1

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something beside a request; it is cancelled when the talk closes."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _start_ears(self, tell: Tell) -> None:
        try:
            await self._ears.ready()
        except CarillonError as error:
            tell({"type": "error", **error.to_wire()})

    @property
    def busy(self) -> bool:
        """Whether the front door should wait for it when it stops: a conversation never ends by itself."""
        return False

    def go_away(self, deadline_s: float) -> None:
        """Hang up everywhere: the front door stops."""
        for conversation in self._open:
            conversation.hang_up()

    async def aclose(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._ears.aclose()
        await self._mind.aclose()


@asynccontextmanager
async def open_talk(settings: Settings) -> AsyncIterator[Talk]:
    """The talk as it is configured."""
    talk = Talk(settings, ears=ears_of(settings.talk), mind=mind_of(settings.talk))
    try:
        yield talk
    finally:
        await talk.aclose()
