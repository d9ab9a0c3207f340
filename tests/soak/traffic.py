"""Those who use the fleet while it is hurt: listeners, downloads, and books. Each does what a careful client does.

A listener speaks by the project's own resuming client, with either front door; a download is made again when its
front door is gone. What is refused for now is asked again. Everything else must come, to the sample.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from uuid import uuid4

import httpx

from app.client.resuming import open_resuming_session
from app.errors import CarillonError
from app.speech.protocol import AudioFrame, Done
from tests.soak.fleet import SoakFleet
from tests.soak.ledger import Ledger, Talker
from tests.soak.worker import audio_of

VOICES = ("slt", "rms")
WORDS = (
    "owl bridge farmer market apple bell tower clock golden stone river night morning letter garden window silver "
    "horse sailor candle harbour winter"
).split()
HANG_S = 180.0
"""A session that takes longer is lost."""

AGAIN_S = 0.3
JOB_HANG_S = 600.0


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

    def end(self) -> None:
        self._over.set()

    async def run(self, talkers: list[Talker], *, books: int) -> None:
        async with asyncio.TaskGroup() as group:
            for number, talker in enumerate(talkers):
                rng = random.Random(f"{self._seed} {talker.name}")
                work = self._download if number % 3 == 2 else self._listen
                group.create_task(self._again(work, talker, rng))
            for number in range(books):
                group.create_task(self._read_books(random.Random(f"{self._seed} book {number}")))

    async def _again(self, work, talker: Talker, rng: random.Random) -> None:  # noqa: ANN001
        while not self._over.is_set():
            await work(talker, rng)

    # Sessions.

    async def _listen(self, talker: Talker, rng: random.Random) -> None:
        text = told(rng, rng.randint(2, 6))
        doors = rng.sample(list(self._fleet.doors.values()), len(self._fleet.doors))
        voice, pause_s = rng.choice(VOICES), rng.choice((0.0, 0.02, 0.2))
        heard, frames = bytearray(), 0
        try:
            async with (
                asyncio.timeout(HANG_S),
                open_resuming_session(doors, talker.key, voice=voice, pace="realtime") as session,
            ):
                writing = asyncio.create_task(self._write(session, text, pause_s))
                try:
                    async for event in session:
                        if isinstance(event, AudioFrame):
                            frames += 1
                            begins = 2 * event.sample_offset
                            if begins > len(heard):
                                raise AssertionError(f"samples {len(heard) // 2} to {event.sample_offset} are missing")
                            del heard[begins:]
                            heard += event.audio
                        elif isinstance(event, Done):
                            self._ledger.moves += event.ledger.moves
                            self._ledger.underruns += event.ledger.underruns
                finally:
                    writing.cancel()
                    with suppress(asyncio.CancelledError, CarillonError):
                        await writing
                    self._ledger.resumed += session.resumed
                    talker.breaks += session.resumed
        except (CarillonError, TimeoutError, AssertionError) as error:
            if isinstance(error, CarillonError) and error.retryable and not frames:
                self._ledger.refused[error.code] += 1
                talker.breaks += 1
                await asyncio.sleep(AGAIN_S)
                return
            expected = audio_of(text)
            self._ledger.lose(
                "live",
                f"live session of {talker.name}: {len(heard) // 2} of {len(expected) // 2} samples, then "
                f"{type(error).__name__} {error}; {text!r}",
                missing=(len(expected) - len(heard)) // 2,
            )
            self._ledger.heard(talker, bytes(heard))
            talker.breaks += 1
            return
        self._settle("live", talker, text, bytes(heard))

    async def _write(self, session, text: str, pause_s: float) -> None:  # noqa: ANN001
        for word in text.split(" "):
            await session.say(word + " ")
            if pause_s:
                await asyncio.sleep(pause_s)
        await session.end()

    async def _download(self, talker: Talker, rng: random.Random) -> None:
        text, door = told(rng, rng.randint(1, 4)), rng.choice(list(self._fleet.doors.values()))
        said = {"model": "standin", "voice": rng.choice(VOICES), "input": text, "response_format": "pcm"}
        heard = bytearray()
        try:
            async with (
                asyncio.timeout(HANG_S),
                httpx.AsyncClient(
                    base_url=door,
                    headers={"Authorization": f"Bearer {talker.key}"},
                    timeout=HANG_S,
                    trust_env=False,
                ) as client,
                client.stream("POST", "/v1/audio/speech", json=said) as answer,
            ):
                if answer.status_code in (429, 503):
                    self._ledger.refused[str(answer.status_code)] += 1
                    await asyncio.sleep(AGAIN_S)
                    return
                if answer.status_code != 200:
                    self._ledger.lose("download", f"download of {talker.name}: {await answer.aread()!r}")
                    return
                async for piece in answer.aiter_raw():
                    heard += piece
        except httpx.TransportError:
            # One answer on one connection: it ends with its front door, and is asked for again.
            talker.breaks += 1
            if audio_of(text).startswith(bytes(heard)):
                self._ledger.ended["download broken with its front door"] += 1
                self._ledger.heard(talker, bytes(heard))
                await asyncio.sleep(AGAIN_S)
                return
        except TimeoutError:
            self._ledger.lose("download", f"download of {talker.name}: hung after {len(heard) // 2} samples; {text!r}")
            talker.breaks += 1
            return
        self._settle("download", talker, text, bytes(heard))

    def _settle(self, kind: str, talker: Talker, text: str, heard: bytes) -> None:
        expected = audio_of(text)
        if heard == expected:
            self._ledger.whole(kind, talker, heard)
            return
        same = next((at for at in range(0, min(len(heard), len(expected)), 2) if heard[at] != expected[at]), -1)
        self._ledger.lose(
            kind,
            f"{kind} of {talker.name}: {len(heard) // 2} samples in place of {len(expected) // 2}, the first other one "
            f"at {same // 2}; {text!r}",
            missing=max(0, len(expected) - len(heard)) // 2,
        )
        self._ledger.heard(talker, heard)

    # Jobs.

    async def _read_books(self, rng: random.Random) -> None:
        while not self._over.is_set():
            text = "\n\n".join(f"# Chapter {number}\n\n{told(rng, 4)}" for number in (1, 2))
            id = await self._order(text)
            if id is None:
                return
            await self._follow(id)

    async def _order(self, text: str) -> str | None:
        """A book, ordered once however often that must be said."""
        key = uuid4().hex
        body = {"voice": "slt", "text": text, "kind": "markdown", "format": "wav"}
        async with asyncio.timeout(JOB_HANG_S):
            while True:
                for door in self._fleet.doors.values():
                    with suppress(httpx.TransportError):
                        async with self._fleet.client(door, timeout_s=20) as client:
                            answer = await client.post("/v1/narrations", json=body, headers={"Idempotency-Key": key})
                        if answer.status_code == 202:
                            self._ledger.jobs["books ordered"] += 1
                            return answer.json()["id"]
                        if answer.status_code not in (409, 429, 500, 503):
                            self._ledger.lost.append(f"a book was refused: {answer.text}")
                            return None
                    await asyncio.sleep(AGAIN_S)

    async def _follow(self, id: str) -> None:
        try:
            async with asyncio.timeout(JOB_HANG_S):
                while True:
                    for door in self._fleet.doors.values():
                        with suppress(httpx.TransportError):
                            async with self._fleet.client(door, timeout_s=20) as client:
                                answer = await client.get(f"/v1/narrations/{id}")
                            if answer.status_code == 200 and (book := answer.json())["over"]:
                                self._close(book)
                                return
                        await asyncio.sleep(0.5)
        except TimeoutError:
            self._ledger.lost.append(f"book {id} is not over after {JOB_HANG_S:g} s")

    def _close(self, book: dict) -> None:  # type: ignore[type-arg]
        self._ledger.jobs[f"books {book['state']}"] += 1
        if book["state"] != "completed" or book["segments_done"] != book["segments"]:
            self._ledger.lost.append(
                f"book {book['id']} is {book['state']} with {book['segments_done']} of {book['segments']} segments: "
                f"{book['error']}"
            )
