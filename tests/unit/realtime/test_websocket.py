"""The wire to a worker, against the WebSocket server that workers use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from picows import WSHandshakeError
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from app.local.embedded import free_port
from app.realtime.websocket import MAX_WAITING, Wire, WireClosed
from tests.support.deadlines import HANG_S

pytestmark = pytest.mark.anyio

Talk = Callable[[ServerConnection], Awaitable[None]]


@asynccontextmanager
async def wire_to(
    talk: Talk, *, answer: Callable[[ServerConnection, Request], Response | None] | None = None
) -> AsyncIterator[Wire]:
    """A wire whose other end does as `talk` has it."""
    async with (
        serve(talk, "127.0.0.1", 0, process_request=answer, compression=None, close_timeout=1) as server,
        asyncio.timeout(HANG_S),
    ):
        port = next(iter(server.sockets)).getsockname()[1]
        wire = await Wire.connect(f"ws://127.0.0.1:{port}/session", {"Authorization": "Bearer s"}, timeout_s=HANG_S)
        try:
            yield wire
        finally:
            await wire.close()


async def test_text_and_bytes_come_as_they_were_sent_in_one_frame_or_in_several() -> None:
    async def talk(socket: ServerConnection) -> None:
        await socket.send("grüße")
        await socket.send(b"\x00audio")
        await socket.send(["in ", "pie", "ces"])
        await socket.send([b"so", b"und"])
        await socket.send("")

    async with wire_to(talk) as wire:
        assert [await wire.receive() for _ in range(5)] == ["grüße", b"\x00audio", "in pieces", b"sound", ""]


async def test_what_came_before_the_end_is_read_before_the_end() -> None:
    async def talk(socket: ServerConnection) -> None:
        await socket.send("last words")

    async with wire_to(talk) as wire:
        assert await wire.receive() == "last words"
        with pytest.raises(WireClosed):
            await wire.receive()


async def test_an_aborted_wire_gives_out_what_it_has_and_wakes_its_reader() -> None:
    said = asyncio.Event()

    async def talk(socket: ServerConnection) -> None:
        await socket.send("one")
        await socket.send("two")
        said.set()
        await socket.wait_closed()

    async with wire_to(talk) as wire:
        assert await wire.receive() == "one"
        await said.wait()
        reading = asyncio.create_task(wire.receive())
        assert await reading == "two"
        reading = asyncio.create_task(wire.receive())
        await asyncio.sleep(0)
        wire.abort()
        with pytest.raises(WireClosed):
            await reading


async def test_what_is_sent_arrives_and_goes_nowhere_once_the_other_end_is_gone() -> None:
    received: asyncio.Queue[str | bytes] = asyncio.Queue()

    async def talk(socket: ServerConnection) -> None:
        received.put_nowait(await socket.recv())

    async with wire_to(talk) as wire:
        wire.send("hello")
        assert await received.get() == "hello"
        with pytest.raises(WireClosed):
            await wire.receive()
        wire.send("too late")
        assert not wire.clogged


async def test_a_reader_that_takes_nothing_makes_the_other_end_wait() -> None:
    sent = 0
    stuck = asyncio.Event()

    async def talk(socket: ServerConnection) -> None:
        nonlocal sent
        try:
            while sent < 10_000:
                async with asyncio.timeout(0.2):
                    await socket.send(bytes(100_000))
                sent += 1
        except TimeoutError:
            stuck.set()
            await socket.wait_closed()

    async with wire_to(talk) as wire:
        await stuck.wait()
        assert sent < 1_000
        for _ in range(2 * MAX_WAITING):
            assert len(await wire.receive()) == 100_000


async def test_a_sender_is_notified_that_the_other_end_takes_nothing_and_when_it_does_again() -> None:
    go_on = asyncio.Event()

    async def talk(socket: ServerConnection) -> None:
        await go_on.wait()
        async for _ in socket:
            pass

    async with wire_to(talk) as wire:
        for _ in range(1_000):
            wire.send("x" * 100_000)
            if wire.clogged:
                break
        assert wire.clogged
        go_on.set()
        await wire.cleared()
        assert not wire.clogged


async def test_closing_says_goodbye() -> None:
    codes: asyncio.Queue[int] = asyncio.Queue()

    async def talk(socket: ServerConnection) -> None:
        try:
            await socket.recv()
        except ConnectionClosed as closed:
            codes.put_nowait(closed.rcvd.code if closed.rcvd else 1006)

    async with wire_to(talk) as wire:
        await wire.close()
        assert await codes.get() == 1000


async def test_a_refusal_reports_its_status() -> None:
    def refuse(socket: ServerConnection, request: Request) -> Response:
        return socket.respond(401, "no")  # pyright: ignore[reportArgumentType]

    async def talk(socket: ServerConnection) -> None:
        raise AssertionError("no connection is let in")

    with pytest.raises(WSHandshakeError) as refused:
        async with wire_to(talk, answer=refuse):
            raise AssertionError("no connection is let in")
    assert refused.value.response and refused.value.response.status == 401


async def test_a_refused_connection_is_an_os_error() -> None:
    with pytest.raises(OSError):
        await Wire.connect(f"ws://127.0.0.1:{free_port()}/session", {}, timeout_s=HANG_S)


async def test_an_end_that_vanishes_within_the_handshake_is_an_os_error_and_no_wire() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    async with asyncio.timeout(HANG_S), await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(OSError, match="within its handshake"):
            await Wire.connect(f"ws://127.0.0.1:{port}/session", {}, timeout_s=HANG_S)


async def test_an_end_that_vanishes_before_the_first_message_is_reported_to_the_reader() -> None:
    gone = asyncio.Event()

    async def talk(socket: ServerConnection) -> None:
        socket.transport.abort()
        gone.set()

    async with wire_to(talk) as wire:
        await gone.wait()
        wire.send("hello")
        with pytest.raises(WireClosed):
            await wire.receive()
        wire.send("hello?")
        assert not wire.clogged


async def test_a_connect_that_is_cancelled_leaves_no_connection_behind() -> None:
    arrived, gone = asyncio.Event(), asyncio.Event()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.set()
        while await reader.read(1_000):
            pass
        gone.set()
        writer.close()

    async with asyncio.timeout(HANG_S), await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        dialling = asyncio.create_task(Wire.connect(f"ws://127.0.0.1:{port}/session", {}, timeout_s=0.2))
        await arrived.wait()
        dialling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await dialling
        await gone.wait()
