"""A scripted worker as a process: `python -m tests.soak.worker`, configured as a worker is.

It speaks as the tests' fake worker does, a tone for each character, one sentence at a time and no faster than a
listener can follow. So the audio of a text is known in advance, however the session came to its end. Registration,
heartbeats, leases and drains are a worker's own.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress

from websockets.asyncio.server import serve

from app.errors import DeadlineExceeded
from app.fleet.registry import Registry, open_redis
from app.fleet.worker import WorkerState
from app.platform import profiles
from app.platform.logs import configure_logging
from app.platform.settings import Settings, load_settings
from tests.support.fake_worker import STAND_IN, FakeSession, FakeWorker, tone
from workers.heartbeat import Heartbeat

CHARACTER_S = 0.025
"""Each sounds for twice as long: a session is spoken at twice a listener's pace."""

SENTENCE = re.compile(r"[^.!?]*[.!?]?\s*")


def sentences(text: str) -> list[str]:
    """A text, parted behind each sentence's end."""
    return [part for part in SENTENCE.findall(text) if part]


def audio_of(text: str) -> bytes:
    """What every session of this text must sound like, PCM s16le."""
    return b"".join(tone(character) for sentence in sentences(text) for character in sentence.strip())


class SentenceSession(FakeSession):
    """Chunks are sentences, however the text comes: a session that moved is cut as one that did not."""

    async def _hear(self, text: str) -> None:
        for part in sentences(text):
            await super()._hear(part)


class ScriptedWorker(FakeWorker):
    session_kind = SentenceSession

    def __init__(self, registry: Registry, settings: Settings, *, id: str, address: str) -> None:
        super().__init__(
            registry, settings, id=id, card=STAND_IN, capacity=settings.over(profiles.CPU).capacity, max_voices=4
        )
        self._address = address
        self.drained = asyncio.Event()

    async def leave_to_speak(self, session: FakeSession) -> None:
        await asyncio.sleep(CHARACTER_S)

    def leave(self, deadline_s: float) -> None:
        """Drain, once."""
        if self.state is not WorkerState.DRAINING:
            self.state = WorkerState.DRAINING
            self._draining = asyncio.create_task(self._drain(deadline_s))

    async def _drain(self, deadline_s: float) -> None:
        for session in list(self.sessions.values()):
            await session.say_goodbye(deadline_s)
        with suppress(TimeoutError):
            async with asyncio.timeout(deadline_s + self.settings.handover_timeout_s):
                await self._without_sessions()
        self.drained.set()

    async def _without_sessions(self) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: not self.sessions)

    async def run(self) -> None:
        """Until it has drained."""
        joined = False
        while not joined:
            with suppress(DeadlineExceeded):
                self._epoch = await self._registry.join(self.id)
                joined = True
        heartbeat = Heartbeat(
            self._registry,
            lambda: self.record,
            lambda: [session.held for session in self.sessions.values()],
            lambda voice_id: None,
            interval_s=self.settings.heartbeat_s,
            drain=self.leave,
        )
        beating = asyncio.create_task(heartbeat.run())
        ending = asyncio.create_task(self.drained.wait())
        await asyncio.wait({beating, ending}, return_when=asyncio.FIRST_COMPLETED)
        for task in (beating, ending):
            task.cancel()
        await asyncio.gather(beating, ending, return_exceptions=True)
        with suppress(DeadlineExceeded):
            await self._registry.leave(self.id, self._epoch)


async def main() -> None:
    settings = load_settings()
    configure_logging(settings)
    assert settings.worker_id and settings.worker_address
    redis = open_redis(settings)
    worker = ScriptedWorker(Registry(redis, settings), settings, id=settings.worker_id, address=settings.worker_address)
    async with serve(worker._serve, settings.worker_host, settings.worker_port, compression=None, close_timeout=1):
        await worker.run()
    await redis.aclose()


if __name__ == "__main__":
    asyncio.run(main())
