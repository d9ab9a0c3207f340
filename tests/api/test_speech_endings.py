"""Speech whose client leaves, reads nothing, or is still listening when the server stops."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.api.conftest import House, OpenHouse
from tests.support.fake_worker import FakeWorker, tone
from tests.support.session_client import SPEECH, speak

pytestmark = pytest.mark.anyio


async def test_a_client_that_leaves_ends_the_session_at_the_worker_and_frees_its_place(
    house: House, worker: FakeWorker
) -> None:
    worker.allow(characters=1)
    body = {"model": "standin", "voice": "slt", "input": "Hello.", "response_format": "pcm"}
    async with house.http.stream("POST", SPEECH, json=body) as answer:
        await anext(answer.aiter_bytes())
        await worker.until_sessions(1)
    await worker.until_sessions(0)
    await worker.until_leases(0)


async def test_a_client_that_leaves_while_it_waits_for_audio_ends_the_session_too(
    house: House, worker: FakeWorker
) -> None:
    worker.allow(characters=0)
    waiting = asyncio.create_task(speak(house))
    await worker.until_sessions(1)
    waiting.cancel()
    await worker.until_sessions(0)
    await worker.until_leases(0)


async def test_a_client_that_leaves_within_its_request_is_no_defect(
    house: House, worker: FakeWorker, caplog: pytest.LogCaptureFixture
) -> None:
    reader, writer = await raw_request(house, b'{"model": "standin", ', length=1_000)
    writer.transport.abort()
    assert await reader.read() == b""
    assert (await speak(house)).status_code == 200
    assert not [record for record in caplog.records if record.exc_info]


async def test_a_client_that_reads_nothing_is_given_up(open_house: OpenHouse) -> None:
    async with open_house(slow_reader_timeout_s=0.5) as house, house.worker() as worker:
        body = {"model": "standin", "voice": "slt", "input": "x" * 4096, "response_format": "pcm"}
        raw = json.dumps(body).encode()
        _, writer = await raw_request(house, raw, length=len(raw))
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await worker.until_sessions(1)
        assert (await speak(house)).status_code == 200
        await worker.until_sessions(0)
        await worker.until_leases(0)
        writer.transport.abort()


async def raw_request(house: House, body: bytes, *, length: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A speech request on a bare socket, so that a test decides what is read and when it ends."""
    host, port = house.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"POST {SPEECH} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {house.key}\r\n"
    writer.write(f"{head}Content-Length: {length}\r\n\r\n".encode() + body)
    await writer.drain()
    return reader, writer


async def test_a_server_that_stops_lets_a_response_end(house: House, worker: FakeWorker) -> None:
    worker.allow(characters=1)
    body = {"model": "standin", "voice": "slt", "input": "Let me finish.", "response_format": "pcm"}
    async with house.http.stream("POST", SPEECH, json=body) as answer:
        pieces = answer.aiter_bytes()
        heard = await anext(pieces)
        house.server.should_exit = True
        worker.allow(characters=None)
        heard += b"".join([piece async for piece in pieces])
    assert heard == b"".join(map(tone, "Let me finish."))
