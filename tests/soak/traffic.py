"""Those who speak with the fleet while it is hurt: listeners and downloads. Each does what a careful client does.

A listener speaks by the project's own resuming client, with either front door; a download is made again when its
front door is gone. What is refused for now is asked again. Everything else must come, to the sample.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence

import httpx

from app.client.resuming import ResumingSession, open_resuming_session
from app.errors import CarillonError, UnknownSession, WorkerLost
from app.speech.protocol import AudioFrame, Done
from tests.soak.fleet import SoakFleet
from tests.soak.ledger import Ledger, Talker
from tests.soak.worker import audio_of

VOICES = ("slt", "rms")
WORDS = (
    *("owl", "bridge", "farmer", "market", "apple", "bell", "tower", "clock"),
    *("golden", "stone", "river", "night", "letter", "garden", "window", "horse"),
)
HANG_S = 600.0
"""A session that takes longer is lost: it is seconds long, and the machine may be slow."""

AGAIN_S = 0.3
PATIENCE_S = 30.0
"""Of the resuming client, nearly: where no front door is there for so long, it gives up, as it says it does."""


def told(rng: random.Random, sentences: int) -> str:
    """A text of so many sentences, of words that are read as they are written."""
    return " ".join(" ".join(rng.choices(WORDS, k=rng.randint(3, 8))).capitalize() + "." for _ in range(sentences))


class Traffic:
    """All of it, until it is told to end; then what has begun comes to its end."""

    def __init__(self, fleet: SoakFleet, ledger: Ledger, seed: int) -> None:
        self._fleet = fleet
        self._ledger = ledger
        self._seed = seed
        self._over = asyncio.Event()
        self._began_at = 0.0

    def end(self) -> None:
        self._over.set()

    async def run(self, talkers: list[Talker], jobs: Sequence[Callable[[], Awaitable[None]]] = ()) -> None:
        """Of these talkers, and each of the `jobs` again and again."""
        self._began_at = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as group:
            for number, talker in enumerate(talkers):
                rng = random.Random(f"{self._seed} {talker.name}")
                work = self._download if number % 3 == 2 else self._listen
                group.create_task(self._again(work, talker, rng))
            for job in jobs:
                group.create_task(self._again(job))

    async def _again(self, work: Callable[..., Awaitable[None]], *given: object) -> None:
        try:
            while not self._over.is_set():
                await work(*given)
        except AssertionError as error:
            self._ledger.lost.append(f"{work.__name__}: {error}")

    # Sessions.

    async def _listen(self, talker: Talker, rng: random.Random) -> None:
        text, voice, pause_s = told(rng, rng.randint(2, 6)), rng.choice(VOICES), rng.choice((0.0, 0.02, 0.2))
        doors = rng.sample(list(self._fleet.doors.values()), len(self._fleet.doors))
        heard, breaks, fault = bytearray(), 0, None
        try:
            async with (
                asyncio.timeout(HANG_S),
                open_resuming_session(doors, talker.key, voice=voice, pace="realtime") as session,
            ):
                try:
                    await self._converse(session, text, pause_s, heard)
                finally:
                    breaks = session.resumed
        except (CarillonError, TimeoutError, AssertionError) as error:
            fault, breaks = error, breaks + 1
        self._ledger.resumed += breaks - (fault is not None)
        talker.end(asyncio.get_running_loop().time(), len(heard), breaks=breaks)
        if isinstance(fault, CarillonError) and fault.retryable and not heard:
            self._ledger.refused[fault.code] += 1
            await asyncio.sleep(AGAIN_S)
        elif isinstance(fault, WorkerLost) and self._fleet.without_front_door_s() > PATIENCE_S:
            self._ledger.ended["live given up, no front door for half a minute"] += 1
        elif isinstance(fault, UnknownSession) and self._fleet.both_copies_lost():
            self._ledger.ended["live given up, lost with its front door and its journal"] += 1
        else:
            self._settle("live", talker, text, bytes(heard), fault)

    async def _converse(self, session: ResumingSession, text: str, pause_s: float, heard: bytearray) -> None:
        async def write() -> None:
            for word in text.split(" "):
                await session.say(word + " ")
                await asyncio.sleep(pause_s)
            await session.end()

        writing = asyncio.create_task(write())
        try:
            async for event in session:
                if isinstance(event, AudioFrame):
                    begins = 2 * event.sample_offset
                    assert begins <= len(heard), f"samples {len(heard) // 2} to {event.sample_offset} never came"
                    heard[begins:] = event.audio
                elif isinstance(event, Done):
                    self._ledger.moves += event.ledger.moves
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)

    async def _download(self, talker: Talker, rng: random.Random) -> None:
        text, door = told(rng, rng.randint(1, 4)), rng.choice(list(self._fleet.doors.values()))
        said = {"model": "standin", "voice": rng.choice(VOICES), "input": text, "response_format": "pcm"}
        heard, fault = bytearray(), None
        try:
            async with (
                asyncio.timeout(HANG_S),
                self._fleet.client(door, key=talker.key, timeout_s=HANG_S) as client,
                client.stream("POST", "/v1/audio/speech", json=said) as answer,
            ):
                if answer.status_code in (429, 503, 504):  # before any audio, and retryable
                    self._ledger.refused[str(answer.status_code)] += 1
                    await asyncio.sleep(AGAIN_S)
                    return
                assert answer.status_code == 200, await answer.aread()
                async for piece in answer.aiter_raw():
                    heard += piece
        except (httpx.TransportError, TimeoutError, AssertionError) as error:
            fault = error
        talker.end(asyncio.get_running_loop().time(), len(heard), breaks=fault is not None)
        if isinstance(fault, httpx.TransportError) and audio_of(text).startswith(bytes(heard)):
            # One answer on one connection: it ends with its front door, and is asked for again.
            self._ledger.ended["download broken with its front door"] += 1
            await asyncio.sleep(AGAIN_S)
        else:
            self._settle("download", talker, text, bytes(heard), fault)

    def _settle(self, kind: str, talker: Talker, text: str, heard: bytes, fault: BaseException | None) -> None:
        expected = audio_of(text)
        if heard == expected and fault is None:
            self._ledger.ended[f"{kind} whole"] += 1
            return
        at_s = asyncio.get_running_loop().time() - self._began_at
        same = next((at for at in range(min(len(heard), len(expected))) if heard[at] != expected[at]), len(heard))
        self._ledger.lose(
            kind,
            f"{kind} of {talker.name}, {at_s:.1f} s: {len(heard) // 2} samples in place of {len(expected) // 2}, "
            f"as they should be up to {same // 2}; {type(fault).__name__} {fault}; {text!r}",
            missing=max(0, len(expected) - len(heard)) // 2,
        )
