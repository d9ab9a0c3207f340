"""Load of an abusive project, in several ways: each a program that floods until it is ended.

    python -m app.bench.floods WAY URL VOICE     with the project's key in CARILLON_KEY

It prints a line once it is under way, and when it is ended by SIGTERM what it was answered, as JSON: statuses and codes
with their counts. A process of its own, so that what measures beside it does not share its event loop.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httpx

from app.bench.sessions import LONG_TEXT
from app.client.session import open_session
from app.errors import CarillonError

LANES = 8
"""Of a flood that asks again and again."""

PAUSE_S = 0.02
"""After each answer: a flood of eight asks at most 400 times a second, and leaves the processor to the fleet."""

SESSIONS, HALF_OPEN, STREAMS = 32, 300, 80
BODY_BYTES = 5_000_000


@dataclass
class Flood:
    """One project's calls. `answers` counts what came back."""

    url: str
    key: str
    voice: str
    http: httpx.AsyncClient
    answers: Counter[str] = field(default_factory=Counter)

    async def ask(self, method: str, path: str, *, key: bool = True, **content: object) -> httpx.Response | None:
        """One request, counted by its status; None where there was no answer."""
        headers = {"Authorization": f"Bearer {self.key}"} if key else {}
        try:
            answer = await self.http.request(method, path, headers=headers, **content)  # type: ignore[arg-type]
        except httpx.HTTPError as error:
            self.answers[type(error).__name__] += 1
            return None
        self.answers[str(answer.status_code)] += 1
        return answer


async def requests(flood: Flood) -> None:
    """Lists, as fast as they are answered."""
    await flood.ask("GET", "/v1/voices")


async def fields(flood: Flood) -> None:
    """5 MB of JSON that holds nothing but unknown fields."""
    await flood.ask("POST", "/v1/narrations", content=UNKNOWN_FIELDS)


async def keyless(flood: Flood) -> None:
    """5 MB of JSON without a key."""
    await flood.ask("POST", "/v1/clones", key=False, content=EMPTY_OBJECTS)


async def books(flood: Flood) -> None:
    """Texts that take a reader long: markup that never ends."""
    text = "It was dark.\n\n" + "<!--a" * 40_000
    await flood.ask("POST", "/v1/narrations/preview", json={"voice": flood.voice, "text": text, "kind": "markdown"})


async def narrations(flood: Flood) -> None:
    """Tiny narrations, as many as are taken."""
    await flood.ask("POST", "/v1/narrations", json={"voice": flood.voice, "text": "The bells ring."})


async def speech(flood: Flood) -> None:
    """Long texts on as many sessions as can be had, as fast as they are spoken."""
    try:
        async with open_session(flood.url, flood.key, voice=flood.voice, pace="unpaced") as session:
            await session.say(LONG_TEXT)
            await session.end()
            async for _ in session:
                pass
        flood.answers["done"] += 1
    except CarillonError as error:
        flood.answers[error.code] += 1


async def starts(flood: Flood) -> None:
    """Sessions that are begun and told nothing."""
    try:
        async with open_session(flood.url, flood.key, voice=flood.voice) as session:
            flood.answers["ready"] += 1
            async for _ in session:
                pass
    except CarillonError as error:
        flood.answers[error.code] += 1


async def half_open(flood: Flood) -> None:
    """Connections whose first request never ends."""
    address = urlsplit(flood.url)
    try:
        reader, writer = await asyncio.open_connection(address.hostname, address.port or 80)
        writer.write(b"GET /v1/models HTTP/1.1\r\nHost: a\r\nX-")
        await writer.drain()
        flood.answers["opened"] += 1
        answer = await reader.read(12)
        flood.answers[answer.decode("latin-1").removeprefix("HTTP/1.1 ") or "closed"] += 1
        writer.close()
    except OSError as error:
        flood.answers[type(error).__name__] += 1


async def streams(flood: Flood) -> None:
    """Event streams of narrations of its own, held open and never read."""
    made = await flood.ask("POST", "/v1/narrations", json={"voice": flood.voice, "text": "The bells ring."})
    known = await flood.ask("GET", "/v1/narrations")
    if made is None or known is None or not known.is_success or not (rows := known.json()["data"]):
        return
    headers = {"Authorization": f"Bearer {flood.key}"}
    with suppress(httpx.HTTPError):
        async with flood.http.stream("GET", f"/v1/narrations/{rows[0]['id']}/events", headers=headers) as stream:
            flood.answers[f"stream {stream.status_code}"] += 1
            async for _ in stream.aiter_lines():
                pass


@dataclass(frozen=True)
class Way:
    """One way to flood: what one lane does again and again, and how many lanes there are."""

    work: Callable[[Flood], Awaitable[None]]
    lanes: int = LANES

    @property
    def says(self) -> str:
        return (self.work.__doc__ or "").strip().rstrip(".")


WAYS = {
    "requests": Way(requests),
    "fields": Way(fields, lanes=2),
    "keyless": Way(keyless, lanes=2),
    "half-open": Way(half_open, lanes=HALF_OPEN),
    "starts": Way(starts, lanes=SESSIONS),
    "speech": Way(speech, lanes=SESSIONS),
    "books": Way(books, lanes=4),
    "narrations": Way(narrations),
    "streams": Way(streams, lanes=STREAMS),
}

UNKNOWN_FIELDS = b"{" + b",".join(b'"key%07d":0' % number for number in range(BODY_BYTES // 15)) + b"}"
EMPTY_OBJECTS = b"[" + b",".join([b"{}"] * (BODY_BYTES // 3)) + b"]"


async def flooded(flood: Flood, way: Way) -> None:
    """Flood until cancelled."""

    async def lane() -> None:
        while True:
            await way.work(flood)
            await asyncio.sleep(PAUSE_S)

    async with asyncio.TaskGroup() as group:
        for _ in range(way.lanes):
            group.create_task(lane())


async def _main(name: str, url: str, voice: str) -> None:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=LANES)
    async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False, limits=limits) as http:
        flood = Flood(url, os.environ["CARILLON_KEY"], voice, http)
        flooding = asyncio.create_task(flooded(flood, WAYS[name]))
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, flooding.cancel)
        await asyncio.sleep(1)
        print("under way", flush=True)
        with suppress(asyncio.CancelledError):
            await flooding
        print(json.dumps(flood.answers), flush=True)


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
