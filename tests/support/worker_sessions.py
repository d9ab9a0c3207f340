"""Sessions for tests, with a scripted engine and a real decoder of a small random codec."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import numpy as np

from app.platform.settings import SessionSettings
from app.speech.audio import samples_of
from app.speech.protocol import Assign, AssignedPace, AudioFrame, Done, Resumption
from app.speech.voices import Voice
from tests.support.fakes import FakeEngine
from tests.support.random_codecs import TINY, random_codec
from workers.decoder import Decoder
from workers.send_queue import Outgoing
from workers.session import Session

CODEC = random_codec(TINY)


def session(
    engine: FakeEngine,
    decoder: Decoder,
    *,
    pace: AssignedPace = "unpaced",
    clock: Callable[[], float] | None = None,
    resume: Resumption | None = None,
    **limits: float,
) -> Session:
    return Session(
        Assign(
            session="s1",
            epoch=1,
            voice=Voice(id="wren", name="wren", model="fake"),
            pace=pace,
            resume=resume,
        ),
        engine=engine,
        decoder=decoder,
        adapter=None,
        settings=SessionSettings(**{"idle_text_s": 0.01, **limits}),  # type: ignore[arg-type]
        clock=clock or asyncio.get_running_loop().time,
    )


async def everything(speaking: Session) -> list[Outgoing]:
    """Run to the end, taking all that is said."""
    said: list[Outgoing] = []

    async def take() -> None:
        while not said or not isinstance(said[-1], Done):
            said.append(await speaking.send_queue.get())

    async with asyncio.TaskGroup() as group:
        group.create_task(take())
        group.create_task(speaking.run())
    return said


async def until(speaking: Session, kind: type[Outgoing]) -> list[Outgoing]:
    said: list[Outgoing] = []
    while not said or not isinstance(said[-1], kind):
        said.append(await speaking.send_queue.get())
    return said


def pcm(said: list[Outgoing]) -> np.ndarray:
    return samples_of(b"".join(item.audio for item in said if isinstance(item, AudioFrame)))
