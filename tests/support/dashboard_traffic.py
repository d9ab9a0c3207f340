"""A few minutes of everything that the dashboards are about, on a fleet with one worker.

Two projects speak, one of them with a limit that it meets; a burst finds no room; listeners interrupt; an adapter is
gone; a voice is cloned and then spoken with; a book is narrated.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx

from app.cli.clone import found
from app.cli.demo import RECORDINGS
from app.cli.demo_sessions import prompts
from app.client.http import ApiClient
from app.client.session import open_session
from app.errors import CarillonError
from app.speech.choices import Scope
from app.speech.protocol import AudioFrame
from tests.support.deadlines import LONG_HANG_S
from tests.support.running_fleet import RunningFleet

LEAST_S = 150.0
RECORDINGS_OF_A_CLONE = 12
RECIPE = {"train": {"epochs": 2}}
BURST = 10
BOOK = "# Chapter I: The Owl\n\nThe owl asked for the time. It was 7:30.\n\n# Chapter II: The Snow\n\nIt snowed.\n"
VOICE, CLONE, GONE = "wren", "heron", "ghost"


async def traffic(fleet: RunningFleet, directory: Path) -> None:
    """Until all jobs are over, but for LEAST_S."""
    began_at = time.monotonic()
    with ApiClient(fleet.address, fleet.key) as client:
        keys = [_project(client, "readers", {}), _project(client, "studio", {"sessions": 1})]
        await fleet.publish(GONE, directory / "nowhere")
        visitors = [
            asyncio.create_task(_again_and_again(visit, pause_s))
            for visit, pause_s in (
                (lambda: listen(fleet, keys[0]), 2),
                (lambda: interrupt(fleet, keys[0]), 2),
                (lambda: download_twice(fleet, keys[1]), 2),
                (lambda: listen(fleet, fleet.key, GONE), 10),
                (lambda: burst(fleet), 30),
            )
        ]
        try:
            async with asyncio.timeout(LONG_HANG_S):
                await asyncio.gather(asyncio.to_thread(clone, client), asyncio.to_thread(narrate, client))
                await asyncio.gather(*(listen(fleet, fleet.key, CLONE) for _ in range(2)))
            await asyncio.sleep(LEAST_S - (time.monotonic() - began_at))
        finally:
            for visitor in visitors:
                visitor.cancel()
            await asyncio.gather(*visitors, return_exceptions=True)


def _project(client: ApiClient, name: str, limits: dict[str, Any]) -> str:
    """A key of a new project."""
    client.keys.create_project(name)
    client.keys.limit_project(name, limits)
    return client.keys.create(name, [Scope.SPEAK], None, name)


async def _again_and_again(visit: Callable[[], Awaitable[None]], pause_s: float) -> None:
    while True:
        await asyncio.sleep(pause_s)
        with suppress(CarillonError, httpx.HTTPError):  # refusals are part of the picture
            await visit()


async def listen(fleet: RunningFleet, key: str, voice: str = VOICE) -> None:
    async with open_session(fleet.address, key, voice=voice) as session:
        await session.say(" ".join(prompts()[:2]))
        await session.end()
        async for _ in session:
            pass


async def interrupt(fleet: RunningFleet, key: str) -> None:
    async with open_session(fleet.address, key, voice=VOICE) as session:
        await session.say(" ".join(prompts()[2:5]))
        async for event in session:
            if isinstance(event, AudioFrame):
                break
        await session.cancel(0)
        await session.end()
        async for _ in session:
            pass


async def download_twice(fleet: RunningFleet, key: str) -> None:
    """At once, which is once more than the project may."""
    await asyncio.gather(_download(fleet, key), _download(fleet, key))


async def burst(fleet: RunningFleet) -> None:
    await asyncio.gather(*(_download(fleet, fleet.key) for _ in range(BURST)))


async def _download(fleet: RunningFleet, key: str) -> None:
    headers = {"Authorization": f"Bearer {key}"}
    body = {"model": "standin", "voice": VOICE, "input": prompts()[6], "response_format": "mp3"}
    async with httpx.AsyncClient(headers=headers, trust_env=False, timeout=LONG_HANG_S) as client:
        await client.post(f"{fleet.address}/v1/audio/speech", json=body)


def clone(client: ApiClient) -> None:
    voice = client.voices.find_or_create(CLONE, model=None, language="en")
    files, transcripts = found(RECORDINGS)
    client.voices.upload_samples(voice["id"], files[:RECORDINGS_OF_A_CLONE], transcripts)
    client.voices.record_consent(voice["id"], recording=None, statement="a synthetic voice")
    job = client.clones.start(voice["id"], RECIPE)
    sys.stdout.write(f"clone: {[now['state'] for now in client.clones.follow(job['id'])][-1]}\n")


def narrate(client: ApiClient) -> None:
    narration = client.narrations.create({"title": "Owl", "text": BOOK, "voice": VOICE, "format": "mp3"})
    sys.stdout.write(f"narration: {[now['state'] for now in client.narrations.follow(narration)][-1]}\n")
