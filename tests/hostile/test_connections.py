"""What a stranger may do with connections: everything is bounded, and there is room for the next client."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import AsyncExitStack

import pytest
from websockets.asyncio.client import connect

from app.api import http_protocol
from app.api.connections import RESERVED, Connection, Connections
from app.api.http_protocol import MAX_HEAD_BYTES, MAX_HEADERS
from app.platform.logs import TextFormatter
from tests.api.conftest import House
from tests.hostile.raw import HALF_A_HEAD, connected
from tests.support.deadlines import HANG_S
from tests.support.fake_worker import FakeWorker
from tests.support.loop_turns import MOST_CALLS, counted_turns
from tests.support.session_client import sessions_client, still_speaks

pytestmark = pytest.mark.anyio


def door_of(house: House) -> Connections:
    """What counts the connections of a running front door."""
    return house.server.config.http_protocol_class.keywords["connections"]  # type: ignore[union-attr]


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(HANG_S):
        while not true():
            await asyncio.sleep(0.01)


async def test_one_header_without_end_is_431_when_it_has_32_kb(house: House) -> None:
    async with connected(house.url) as stranger:
        assert b" 431 " in await stranger.answer_to(HALF_A_HEAD, *[b"x" * 2**20] * 64)


async def test_a_head_that_fits_is_answered(house: House) -> None:
    async with connected(house.url) as client:
        await client.send(HALF_A_HEAD + b"x" * (MAX_HEAD_BYTES // 2) + b"\r\n\r\n")
        assert await client.status() == 200


async def test_headers_without_end_are_431(house: House) -> None:
    async with connected(house.url) as stranger:
        await stranger.send(HALF_A_HEAD + b"x\r\n" + b"a: b\r\n" * MAX_HEADERS)
        assert b" 431 " in await stranger.answer()


async def test_an_address_without_end_is_414(house: House) -> None:
    async with connected(house.url) as stranger:
        await stranger.send(b"GET /" + b"x" * 2**17 + b" HTTP/1.1\r\n\r\n")
        assert (await stranger.answer()).split()[1] in (b"414", b"431")


async def test_the_trailers_of_a_body_are_no_way_around_it(house: House) -> None:
    async with connected(house.url) as stranger:
        head = b"POST /healthz HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nx: "
        assert b" 405 " in await stranger.answer_to(head, *[b"x" * 2**16] * 64)


async def test_a_half_sent_head_is_given_up(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "HEAD_S", 0.05)
    async with connected(house.url) as stranger:
        await stranger.send(HALF_A_HEAD)
        assert b" 408 " in await stranger.answer()


async def test_so_is_the_second_one_on_a_connection_that_was_kept(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_protocol, "HEAD_S", 0.05)
    async with connected(house.url) as stranger:
        await stranger.send(HALF_A_HEAD + b"x\r\n\r\n" + HALF_A_HEAD)
        answer = await stranger.answer()
        assert b" 200 " in answer and b" 408 " in answer


async def test_a_body_that_drips_after_its_refusal_is_given_up(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "UNREAD_BODY_S", 0.05)
    async with connected(house.url) as stranger:
        await stranger.send(b"POST /v1/clones HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nx")
        assert b" 401 " in await stranger.answer()


async def test_1100_half_open_connections_lock_nobody_out(house: House, worker: FakeWorker) -> None:
    """Each stranger's connection is the first to go for the next; who speaks stays."""
    door = door_of(house)
    door.limit, door.per_address = 100, 90
    async with sessions_client(house.sessions_url, house.key) as speaker, AsyncExitStack() as strangers:
        for _ in range(1100):
            stranger = await strangers.enter_async_context(connected(house.url))
            await stranger.send(HALF_A_HEAD)
        assert len(door) <= 100
        assert (await house.http.get("/v1/models")).status_code == 200
        async with sessions_client(house.sessions_url, house.key) as another:
            assert await still_speaks(another)
        assert await still_speaks(speaker)


async def test_beyond_the_last_connection_health_is_still_answered_and_nothing_else(house: House) -> None:
    await house.http.aclose()
    door = door_of(house)
    async with sessions_client(house.sessions_url, house.key), connected(house.url) as watcher:
        await until(lambda: len(door) == 2)
        door.limit = 1
        async with connected(house.url) as stranger:
            await until(lambda: len(door) == 2)
            assert await watcher.answer() == b""  # it had said nothing, and made room
            door.limit = 0
            await stranger.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert await stranger.status() == 200
        await until(lambda: len(door) == 1)
        for path, status in (("/healthz", b"200"), ("/v1/models", b"503")):
            async with connected(house.url) as late:
                await late.send(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
                assert (await late.answer()).split()[1] == status
            await until(lambda: len(door) == 1)


def test_the_reserve_is_for_health_alone_and_is_bounded() -> None:
    door = Connections(limit=1, per_address=1000)
    closed: list[Connection] = []

    def new(address: str = "a") -> Connection:
        connection = Connection(address, lambda: closed.append(connection))
        return connection

    busy = new()
    assert door.enter(busy) and not busy.reserved
    door.decided(busy)
    reserved = [new() for _ in range(RESERVED)]
    for connection in reserved:
        assert door.enter(connection) and connection.reserved
        door.decided(connection)
    assert not door.enter(new())
    door.leave(busy)
    door.undecided(reserved[0])
    assert door.enter(new()) and closed == [reserved[0]]


def test_one_address_has_its_share_and_makes_room_for_itself_alone() -> None:
    door = Connections(limit=100, per_address=2)
    closed: list[str] = []
    first, second = (Connection("a", lambda name=name: closed.append(name)) for name in ("first", "second"))
    other = Connection("b", lambda: closed.append("other"))
    assert all(map(door.enter, (other, first, second)))
    assert door.enter(Connection("a", lambda: None))
    assert closed == ["first"]


async def test_pipelined_requests_without_end_are_429(house: House) -> None:
    async with connected(house.url) as stranger:
        assert b" 429 " in await stranger.answer_to(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 20_000)


async def test_a_body_of_one_byte_chunks_holds_nobody_up(house: House) -> None:
    async with connected(house.url) as stranger, counted_turns() as turns:
        head = f"POST /v1/clones HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {house.key}\r\n"
        await stranger.send(head.encode() + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 100_000)
        assert await stranger.status() == 403
    assert turns.most_calls < MOST_CALLS


async def test_the_smallest_frames_without_end_hold_nobody_up(house: House, worker: FakeWorker) -> None:
    ping = b"\x89\x80\0\0\0\0"
    nothing, piece = b"\x01\x80\0\0\0\0", b"\x00\x80\0\0\0\0"
    async with (
        sessions_client(house.sessions_url, house.key) as other,
        sessions_client(house.sessions_url, house.key) as stranger,
        counted_turns() as turns,
    ):
        transport = stranger.socket.transport
        transport.pause_reading()  # what it is answered is no work of the front door's
        transport.write(ping * 5_000 + nothing + piece * 5_000)
        assert await still_speaks(other)
    assert turns.most_calls < MOST_CALLS


async def test_no_query_is_logged_and_no_path_acts_on_the_log(house: House, caplog: pytest.LogCaptureFixture) -> None:
    """A forged Host cannot take the path's place either."""
    with caplog.at_level(logging.INFO):
        async with connected(house.url) as stranger:
            await stranger.send(
                b"GET /v1/%1b%5b2J%07%00%0aforged?key=cari_secret HTTP/1.1\r\nHost: evil/elsewhere#\r\n"
                b"Connection: close\r\n\r\n"
            )
            await stranger.answer()
            await stranger_without_key(house, "/v1/models?key=cari_secret")
        with pytest.raises(Exception, match="401"):
            async with connect(f"{house.sessions_url}?key=cari_secret", proxy=None):
                pass
    lines = [TextFormatter().format(record) for record in caplog.records]
    assert any("request refused path=/v1/models" in line for line in lines)
    assert not [line for line in lines if "cari_secret" in line or "elsewhere" in line]
    assert not [line for line in lines if set("\x1b\x07\x00\n") & set(line)]


async def stranger_without_key(house: House, path: str) -> int:
    async with connected(house.url) as stranger:
        await stranger.send(f"GET {path} HTTP/1.1\r\nHost: evil/elsewhere#\r\nConnection: close\r\n\r\n".encode())
        return int((await stranger.answer()).split()[1])


async def test_620_long_paths_leave_the_log_as_it_was(house: House, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        async with asyncio.TaskGroup() as group:
            for _ in range(620):
                group.create_task(stranger_without_key(house, "/v1/voices/" + "x" * 30_000))
    written = sum(len(TextFormatter().format(record)) for record in caplog.records)
    assert written < 200_000
