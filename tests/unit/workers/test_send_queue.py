from __future__ import annotations

import pytest

from app.speech.protocol import AudioFrame
from workers.send_queue import Outgoing, SendQueue

pytestmark = pytest.mark.anyio


def frame(sequence: int) -> AudioFrame:
    return AudioFrame(channel=0, generation=0, sequence=sequence, sample_offset=0, audio=b"")


class Outlet:
    """A socket that takes items while it is `open`."""

    def __init__(self) -> None:
        self.open = True
        self.sent: list[Outgoing] = []

    def __call__(self, item: Outgoing) -> bool:
        if self.open:
            self.sent.append(item)
        return self.open


async def test_what_finds_the_queue_empty_goes_straight_out():
    queue, outlet = SendQueue(8, timeout_s=1), Outlet()
    queue.outlet = outlet
    await queue.put(frame(0))
    assert outlet.sent == [frame(0)]
    assert queue.empty()


async def test_nothing_overtakes_what_the_outlet_did_not_take():
    queue, outlet = SendQueue(8, timeout_s=1), Outlet()
    queue.outlet = outlet
    outlet.open = False
    await queue.put(frame(0))
    outlet.open = True
    await queue.put(frame(1))
    assert outlet.sent == []
    assert [await queue.get(), await queue.get()] == [frame(0), frame(1)]
