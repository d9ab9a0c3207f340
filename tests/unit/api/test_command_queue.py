"""What waits for a session: in which order it is sent, how much of it may wait, and what a cancel leaves of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import pytest

from app.api.command_queue import MAX_COMMANDS, CommandQueue
from app.errors import InvalidRequest, TextAfterEnd, TextTooLong
from app.realtime.session import RoutedSession
from app.realtime.worker_client import Command
from app.speech.protocol import Cancel, Eos, Flush, Text
from tests.support.deadlines import HANG_S

pytestmark = pytest.mark.anyio

FLUSH, EOS, CANCEL = Flush(session="s"), Eos(session="s"), Cancel(session="s")


class Upstream:
    """A session that takes one command for each permit, and begins to speak nothing."""

    def __init__(self) -> None:
        self.pending_chars = 0
        self.sent: list[Command] = []
        self.permits = asyncio.Semaphore(0)
        self.waits = asyncio.Event()

    async def send(self, command: Command) -> None:
        self.waits.set()
        await self.permits.acquire()
        self.waits.clear()
        self.sent.append(command)
        self.pending_chars = 0 if command is CANCEL else self.pending_chars + len(getattr(command, "text", ""))

    async def take(self, count: int) -> list[Command]:
        """Let so many commands be sent; returns all that were."""
        for _ in range(count):
            self.permits.release()
        async with asyncio.timeout(HANG_S):
            while len(self.sent) < count:
                await asyncio.sleep(0)
        return self.sent


@asynccontextmanager
async def carried(queue: CommandQueue) -> AsyncIterator[Upstream]:
    upstream = Upstream()
    carrying = asyncio.create_task(queue.carry(cast(RoutedSession, upstream)))
    try:
        yield upstream
    finally:
        carrying.cancel()


def text(words: str) -> Text:
    return Text(session="s", text=words)


async def test_commands_are_sent_in_their_order() -> None:
    queue = CommandQueue(max_pending_chars=100)
    commands = [text("One."), FLUSH, text("Two."), EOS]
    for command in commands:
        queue.put(command)
    async with carried(queue) as upstream:
        assert await upstream.take(len(commands)) == commands


async def test_text_is_counted_here_on_its_way_and_in_the_session() -> None:
    queue = CommandQueue(max_pending_chars=10)
    async with carried(queue) as upstream:
        upstream.pending_chars = 4
        queue.put(text("abc"))
        await upstream.waits.wait()
        queue.put(text("de"))
        with pytest.raises(TextTooLong, match="2 characters with 9 still waiting; at most 10 may be pending"):
            queue.put(text("fg"))
        queue.put(text("f"))


async def test_text_that_was_cancelled_no_longer_counts_wherever_it_is() -> None:
    queue = CommandQueue(max_pending_chars=10)
    async with carried(queue) as upstream:
        upstream.pending_chars = 5
        queue.put(text("in"))
        await upstream.waits.wait()
        queue.put(text("out"))
        queue.cancel(CANCEL)
        queue.put(text("0123456789"))
        assert await upstream.take(3) == [text("in"), CANCEL, text("0123456789")]


async def test_a_cancel_leaves_earlier_cancels_and_the_end() -> None:
    queue = CommandQueue(max_pending_chars=10)
    first, second = Cancel(session="s", played_samples=1), Cancel(session="s", played_samples=2)
    queue.cancel(first)
    for command in (text("lost"), FLUSH, EOS):
        queue.put(command)
    queue.cancel(second)
    async with carried(queue) as upstream:
        assert await upstream.take(3) == [first, second, EOS]


async def test_no_more_commands_wait_than_may() -> None:
    queue = CommandQueue(max_pending_chars=10)
    for _ in range(MAX_COMMANDS):
        queue.put(FLUSH)
    with pytest.raises(InvalidRequest, match=f"{MAX_COMMANDS} messages wait"):
        queue.put(FLUSH)


@pytest.mark.parametrize("command", [text("more"), FLUSH, EOS], ids=lambda command: command.type)
async def test_nothing_follows_the_end(command: Command) -> None:
    queue = CommandQueue(max_pending_chars=10)
    queue.put(EOS)
    with pytest.raises(TextAfterEnd, match=f"{command.type} after the end"):
        queue.put(command)
