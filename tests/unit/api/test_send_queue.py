from __future__ import annotations

import asyncio
import struct

import pytest

from app.api.native.send_queue import MAX_ITEMS, MAX_SAMPLES_PER_ITEM, SendQueue, Writer
from app.api.stream_encoder import StreamEncoder
from app.errors import SlowReader
from app.speech.choices import AudioFormat
from app.speech.protocol import AudioFrame, Cancelled, Flushed, Pong

pytestmark = pytest.mark.anyio


def pcm(samples: int, first: int = 0) -> bytes:
    return struct.pack(f"<{samples}h", *range(first, first + samples))


def frame(samples: int, *, offset: int = 0, generation: int = 0) -> AudioFrame:
    return AudioFrame(0, generation, 0, offset, pcm(samples, offset))


def queue(*, window: int | None = None, room: int = 100_000, timeout_s: float = 10) -> SendQueue:
    made = SendQueue(lambda _: None, channel=3, window_samples=window, slow_reader_timeout_s=timeout_s)
    made.open(StreamEncoder(AudioFormat.PCM, sample_rate_hz=24_000, speed=1.0), room_samples=room)
    return made


def taken(from_queue: SendQueue) -> list[AudioFrame | str]:
    items = []
    while (item := from_queue.take()) is not None:
        items.append(AudioFrame.unpack(item) if isinstance(item, bytes) else item)
    return items


async def test_audio_and_messages_leave_in_the_order_they_came() -> None:
    made = queue()
    await made.put(frame(10))
    made.post(Pong(id="between"))
    await made.put(frame(10, offset=10))
    first, message, second = taken(made)
    assert isinstance(message, str) and "between" in message
    assert (first, second) == (AudioFrame(3, 0, 0, 0, pcm(10)), AudioFrame(3, 0, 1, 10, pcm(10, 10)))


async def test_a_turn_at_the_writer_is_short_however_long_the_frame() -> None:
    made = queue()
    await made.put(frame(2 * MAX_SAMPLES_PER_ITEM + 1))
    sizes = [len(item.audio) // 2 for item in taken(made) if isinstance(item, AudioFrame)]
    assert sizes == [MAX_SAMPLES_PER_ITEM, MAX_SAMPLES_PER_ITEM, 1]


class BrokenEncoder(StreamEncoder):
    def encode(self, pcm16: bytes) -> bytes:
        raise ValueError("the encoder is broken")


async def test_an_encoder_that_fails_is_its_own_sessions_affair() -> None:
    made = queue()
    made.open(BrokenEncoder(AudioFormat.PCM, sample_rate_hz=24_000, speed=1.0), room_samples=20)
    await made.put(frame(10))
    assert made.take() is None
    with pytest.raises(ValueError, match="broken"):
        await made.put(frame(10))
    made.post(Pong(id="over"))
    (message,) = taken(made)
    assert isinstance(message, str) and "over" in message


async def test_an_encoder_that_fails_wakes_who_waits_for_room() -> None:
    made = queue()
    made.open(BrokenEncoder(AudioFormat.PCM, sample_rate_hz=24_000, speed=1.0), room_samples=10)
    await made.put(frame(10))
    waiting = asyncio.create_task(made.put(frame(10)))
    await asyncio.sleep(0)
    made.take()
    with pytest.raises(ValueError, match="broken"):
        await waiting


async def test_credit_cuts_audio_at_its_last_sample_and_goes_on_there() -> None:
    made = queue(window=7)
    await made.put(frame(10))
    (head,) = taken(made)
    made.grant(2)
    (middle,) = taken(made)
    made.grant(50)
    (tail,) = taken(made)
    assert [head, middle, tail] == [
        AudioFrame(3, 0, 0, 0, pcm(7)),
        AudioFrame(3, 0, 1, 7, pcm(2, 7)),
        AudioFrame(3, 0, 2, 9, pcm(1, 9)),
    ]


async def test_a_full_box_lets_its_filler_wait_until_something_is_taken() -> None:
    made = queue(room=10)
    await made.put(frame(10))
    filling = asyncio.create_task(made.put(frame(10, offset=10)))
    await asyncio.sleep(0)
    assert not filling.done()
    assert made.take() is not None
    await filling
    assert len(taken(made)) == 1


async def test_what_waits_to_be_put_is_dropped_with_what_was_before_it() -> None:
    made = queue(room=10)
    await made.put(frame(10))
    filling = asyncio.create_task(made.put(frame(10, offset=10)))
    await asyncio.sleep(0)
    made.drop()
    await filling
    assert taken(made) == []
    await made.put(frame(10, offset=20, generation=1))
    assert taken(made) == [AudioFrame(3, 1, 0, 20, pcm(10, 20))]


async def test_an_answer_is_dropped_by_no_later_cancel() -> None:
    made = queue(window=0)
    await made.put(frame(10))
    made.post(Cancelled(session="s", generation=1, spoken_text="", samples=0))
    made.post(Pong(id="of the turn that is over"))
    made.drop()
    (answer,) = taken(made)
    assert isinstance(answer, str) and "cancelled" in answer


async def test_who_tells_more_than_a_box_takes_waits() -> None:
    made = queue()
    for _ in range(MAX_ITEMS):
        await made.put_message(Flushed(session="s", samples=0))
    telling = asyncio.create_task(made.put_message(Flushed(session="s", samples=1)))
    await asyncio.sleep(0)
    assert not telling.done()
    assert made.take() is not None
    await telling
    assert len(taken(made)) == MAX_ITEMS


async def test_of_what_waits_to_be_told_a_cancel_leaves_only_answers() -> None:
    made = queue()
    for _ in range(MAX_ITEMS):
        made.post(Pong())
    answer = Cancelled(session="s", generation=1, spoken_text="", samples=0)
    flushed = asyncio.create_task(made.put_message(Flushed(session="s", samples=0)))
    cancelled = asyncio.create_task(made.put_message(answer))
    await asyncio.sleep(0)
    made.drop()
    await asyncio.gather(flushed, cancelled)
    assert taken(made) == [answer.model_dump_json()]


async def test_audio_that_nobody_takes_is_a_slow_reader() -> None:
    made = queue(window=0, room=10, timeout_s=0.01)
    await made.put(frame(10))
    with pytest.raises(SlowReader):
        await made.put(frame(10))
    with pytest.raises(SlowReader):
        await made.drained()


async def test_the_writer_takes_from_each_box_in_turn() -> None:
    sent: list[str] = []
    enough = asyncio.Event()

    async def send(item: str | bytes) -> None:
        sent.append(str(item))
        if len(sent) == 6:
            enough.set()

    writer = Writer(send, slow_reader_timeout_s=10)
    for channel, name in ((1, "a"), (2, "b"), (3, "c")):
        made = writer.queue(channel)
        made.post(Pong(id=f"{name}1"))
        made.post(Pong(id=f"{name}2"))
    running = asyncio.create_task(writer.run())
    await enough.wait()
    running.cancel()
    assert [item.split('"')[-2] for item in sent] == ["a1", "b1", "c1", "a2", "b2", "c2"]


async def test_the_writer_gives_up_a_client_that_takes_nothing() -> None:
    async def never(item: str | bytes) -> None:
        await asyncio.Event().wait()

    writer = Writer(never, slow_reader_timeout_s=0.01)
    writer.queue(1).post(Pong())
    with pytest.raises(SlowReader):
        await writer.run()


async def test_a_closed_box_sends_nothing_more_and_its_number_may_be_given_again() -> None:
    sent: list[str] = []
    enough = asyncio.Event()

    async def send(item: str | bytes) -> None:
        sent.append(str(item))
        enough.set()

    writer = Writer(send, slow_reader_timeout_s=10)
    old = writer.queue(1)
    old.post(Pong(id="old"))
    writer.close(1)
    writer.queue(1).post(Pong(id="new"))
    old.post(Pong(id="late"))
    running = asyncio.create_task(writer.run())
    await enough.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert [item.split('"')[-2] for item in sent] == ["new"]


class FakeOutlet:
    """A socket that takes `room` messages at once, and one more whenever `send` has waited for it."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.sent: list[str] = []
        self.waited = asyncio.Event()
        self.emptied = asyncio.Event()

    @property
    def clear(self) -> bool:
        return self.room > 0

    def send_now(self, message: str | bytes) -> None:
        self.room -= 1
        self.sent.append(str(message).split('"')[-2])

    async def send(self, message: str | bytes) -> None:
        self.waited.set()
        await self.emptied.wait()
        self.sent.append(str(message).split('"')[-2])


async def test_what_a_clear_outlet_takes_needs_no_turn_of_the_writer() -> None:
    outlet = FakeOutlet(room=3)
    writer = Writer(outlet.send, slow_reader_timeout_s=10, outlet=outlet)
    made = writer.queue(1)
    for number in range(3):
        made.post(Pong(id=str(number)))
    assert outlet.sent == ["0", "1", "2"]
    await made.drained()


async def test_what_comes_while_a_message_waits_for_the_socket_stays_behind_it() -> None:
    outlet = FakeOutlet(room=1)
    writer = Writer(outlet.send, slow_reader_timeout_s=10, outlet=outlet)
    made = writer.queue(1)
    running = asyncio.create_task(writer.run())
    made.post(Pong(id="now"))
    made.post(Pong(id="waits"))
    await outlet.waited.wait()
    outlet.room = 5
    made.post(Pong(id="behind"))
    assert outlet.sent == ["now"]
    outlet.emptied.set()
    await made.drained()
    running.cancel()
    assert outlet.sent == ["now", "waits", "behind"]


async def test_a_cancel_drops_what_an_outlet_has_not_taken() -> None:
    outlet = FakeOutlet(room=0)
    writer = Writer(outlet.send, slow_reader_timeout_s=10, outlet=outlet)
    made = writer.queue(1)
    made.post(Pong(id="dropped"))
    made.drop()
    outlet.room = 1
    made.post(Pong(id="kept"))
    assert outlet.sent == ["kept"]
