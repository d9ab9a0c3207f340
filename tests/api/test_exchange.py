"""The exchange that PROTOCOL.md shows is what happens."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.asyncio.client import connect

from app.api.native.protocol_page import reference
from app.speech.protocol import AudioFrame
from tests.api.conftest import House
from tests.support.deadlines import HANG_S
from tests.support.fake_worker import FakeWorker

pytestmark = pytest.mark.anyio


def exchange() -> Iterator[tuple[str, dict[str, Any]]]:
    """What is sent (→) and received (←), line by line; a line of frames is an empty object."""
    shown = reference().partition("## A whole exchange")[2].partition("```text\n")[2].partition("```")[0]
    for line in shown.splitlines():
        arrow, _, message = line.replace("wren", "slt").partition(" ")
        yield arrow, json.loads(message) if message.startswith("{") else {}


async def test_the_exchange_on_the_page_happens_so(house: House, worker: FakeWorker) -> None:
    lines = list(exchange())
    assert len(lines) > 12
    headers = {"Authorization": f"Bearer {house.key}"}
    async with asyncio.timeout(HANG_S), connect(house.sessions_url, additional_headers=headers, proxy=None) as socket:
        frames: list[AudioFrame] = []
        for arrow, message in lines:
            if arrow == "→":
                await socket.send(json.dumps(message))
                continue
            if not message:
                continue
            while isinstance(received := await socket.recv(), bytes):
                frames.append(AudioFrame.unpack(received))
            got = json.loads(received)
            assert {name: got.get(name) for name in message} == message
        assert {(frame.channel, frame.generation) for frame in frames} == {(1, 0), (1, 1)}
        assert sum(len(frame.audio) // 2 for frame in frames) == lines[-1][1]["samples"]
