"""Sessions whose worker is lost, silent or drained: they go on at another, and the client hears every sample once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from app.errors import AdapterUnavailable, EngineFailed, SessionIdle
from app.fleet.worker import WorkerState
from app.speech.protocol import AudioFrame, Cancelled, Done, Error, Flushed, Segment, Waiting
from tests.api.conftest import House, OpenHouse
from tests.support.deadlines import HANG_S
from tests.support.fake_worker import SAMPLES_PER_CHARACTER, FakeWorker
from tests.support.session_client import SessionsClient, sessions_client, spoken

pytestmark = pytest.mark.anyio

SENTENCES = ("The first sentence.", "  And here\n\nis the second. ", "The third one!")


@pytest.fixture
async def workers(house: House) -> AsyncIterator[tuple[FakeWorker, FakeWorker]]:
    async with house.worker(id="w1") as one, house.worker(id="w2") as two:
        yield one, two


async def home(workers: tuple[FakeWorker, FakeWorker]) -> tuple[FakeWorker, FakeWorker]:
    """(where the one session is, the other)."""
    async with asyncio.timeout(HANG_S):
        while not any(worker.sessions for worker in workers):
            await asyncio.sleep(0.01)
    return workers if workers[0].sessions else (workers[1], workers[0])


def allow(workers: tuple[FakeWorker, FakeWorker], characters: int | None) -> None:
    for worker in workers:
        worker.allow(characters=characters)


def contiguous(frames: list[AudioFrame]) -> bool:
    ends = [frame.sample_offset + len(frame.audio) // 2 for frame in frames]
    return [frame.sample_offset for frame in frames] == [0, *ends[:-1]] and [f.sequence for f in frames] == list(
        range(len(frames))
    )


@pytest.mark.parametrize("heard", [0, 1, 7, 18, 19, 20, 40])
async def test_a_worker_that_is_killed_is_not_heard(
    client: SessionsClient, workers: tuple[FakeWorker, FakeWorker], heard: int
) -> None:
    allow(workers, heard)
    await client.send("start", "s1", voice="slt")
    for sentence in SENTENCES:
        await client.send("text", "s1", text=sentence)
    await client.send("eos", "s1")
    await client.until_frames("s1", heard)
    here, there = await home(workers)
    here.allow(characters=None)
    there.allow(characters=None)
    await here.crash()
    done = await client.until(Done, "s1")
    said = "".join(segment.text for segment in client.all(Segment, "s1"))
    assert "".join(said.split()) == "".join("".join(SENTENCES).split())
    assert client.heard("s1") == spoken(said)
    assert contiguous(client.frames["s1"])
    assert done.samples == len(client.heard("s1")) // 2
    assert not client.all(Error, "s1")


async def test_the_ledger_tells_that_a_session_moved_and_no_times_of_a_worker_that_is_gone(
    client: SessionsClient, workers: tuple[FakeWorker, FakeWorker]
) -> None:
    allow(workers, 3)
    await client.say("s1", "Hello there.")
    await client.until_frames("s1", 3)
    here, _ = await home(workers)
    allow(workers, None)
    await here.crash()
    ledger = (await client.until(Done, "s1")).ledger
    assert ledger.moves == 1
    assert ledger.queue_ms is not None
    assert ledger.first_audio_ms is not None


async def test_an_engine_that_dies_sends_its_session_elsewhere(
    client: SessionsClient, workers: tuple[FakeWorker, FakeWorker]
) -> None:
    allow(workers, 5)
    await client.send("start", "s1", voice="slt")
    await client.send("text", "s1", text="Hello there.")
    await client.until_frames("s1", 5)
    here, there = await home(workers)
    await here.end_sessions(EngineFailed("the engine died"))
    allow(workers, None)
    await client.send("eos", "s1")
    await client.until(Done, "s1")
    assert client.heard("s1") == spoken("Hello there.")
    assert len(there.assigned) == 1


async def test_a_worker_that_vanishes_without_closing_its_sockets_is_left(
    client: SessionsClient, workers: tuple[FakeWorker, FakeWorker]
) -> None:
    allow(workers, 5)
    await client.say("s1", "Hello there.")
    await client.until_frames("s1", 5)
    here, there = await home(workers)
    await here.vanish()
    there.allow(characters=None)
    await client.until(Done, "s1")
    assert client.heard("s1") == spoken("Hello there.")
    assert len(there.assigned) == 1


async def test_text_and_flushes_that_come_while_a_session_moves_are_spoken_in_order(
    client: SessionsClient, workers: tuple[FakeWorker, FakeWorker]
) -> None:
    allow(workers, 2)
    await client.send("start", "s1", voice="slt")
    await client.send("text", "s1", text="One two")
    await client.send("flush", "s1")
    await client.until_frames("s1", 2)
    here, there = await home(workers)
    there.refusal = EngineFailed("not yet")
    await here.stop_listening()
    await here.crash()
    for command, fields in (("text", {"text": " three"}), ("flush", {}), ("text", {"text": " four."}), ("eos", {})):
        await client.send(command, "s1", **fields)
    there.allow(characters=None)
    there.refusal = None
    await client.until(Done, "s1")
    assert client.heard("s1") == spoken("One twothreefour.")
    assert [flushed.samples // SAMPLES_PER_CHARACTER for flushed in client.all(Flushed, "s1")] == [7, 12]


async def test_a_cancel_whose_worker_is_lost_is_answered_with_what_was_heard(
    client: SessionsClient, workers: tuple[FakeWorker, FakeWorker]
) -> None:
    allow(workers, 12)
    await client.send("start", "s1", voice="slt")
    await client.send("text", "s1", text="One two. Three four five.")
    await client.until_frames("s1", 12)
    here, there = await home(workers)
    await here.stop_listening()
    here.mute = True
    await client.send("cancel", "s1", played_samples=8 * SAMPLES_PER_CHARACTER)
    await here.crash()
    there.allow(characters=None)
    await client.send("text", "s1", text="A new turn.")
    await client.send("eos", "s1")
    cancelled = await client.until(Cancelled, "s1")
    await client.until(Done, "s1")
    assert cancelled.generation == 1
    new = [frame for frame in client.frames["s1"] if frame.generation == 1]
    assert b"".join(frame.audio for frame in new) == spoken("A new turn.")


async def test_a_drained_worker_keeps_its_session_until_the_deadline_and_loses_it_between_two_chunks(
    client: SessionsClient, workers: tuple[FakeWorker, FakeWorker]
) -> None:
    await client.send("start", "s1", voice="slt")
    await client.send("text", "s1", text="Before. ")
    await client.until(Segment, "s1")
    here, there = await home(workers)
    await here.drain(deadline_s=0)
    await here.until_sessions(0)
    await client.send("text", "s1", text="And after.")
    await client.send("eos", "s1")
    await client.until(Done, "s1")
    assert client.heard("s1") == spoken("Before.And after.")
    assert len(there.assigned) == 1


async def test_a_session_with_nothing_to_speak_is_not_handed_on_for_ever_between_workers_that_break(
    client: SessionsClient, workers: tuple[FakeWorker, FakeWorker]
) -> None:
    await client.send("start", "s1", voice="slt")
    for _ in range(2):
        here, _ = await home(workers)
        await here.end_sessions(EngineFailed("the engine died"))
        here.refusal = EngineFailed("the engine is dead")
    for worker in workers:
        worker.refusal = None
    assert [len(worker.assigned) for worker in workers] == [1, 1]
    await client.send("text", "s1", text="It goes on with the next text.")
    await client.send("eos", "s1")
    await client.until(Done, "s1")
    assert client.heard("s1") == spoken("It goes on with the next text.")
    assert sum(len(worker.assigned) for worker in workers) == 3


async def test_a_session_that_was_idle_for_too_long_is_over_wherever_it_is(
    client: SessionsClient, workers: tuple[FakeWorker, FakeWorker]
) -> None:
    await client.send("start", "s1", voice="slt")
    here, there = await home(workers)
    await here.end_sessions(SessionIdle("no text for 60 s"))
    assert (await client.refusal("s1")).code == "session_idle"
    assert not there.assigned


async def test_a_worker_that_is_slow_and_alone_is_waited_for(
    open_house: OpenHouse, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        open_house(stall_timeout_s=0.1) as house,
        house.worker() as worker,
        sessions_client(house.sessions_url, house.key) as client,
    ):
        worker.allow(characters=1)
        await client.say("s1", "Hello there.")
        await client.until_frames("s1", 1)
        async with asyncio.timeout(HANG_S):
            while "worker is slow" not in caplog.messages:
                await asyncio.sleep(0.01)
        worker.allow(characters=None)
        await client.until(Done, "s1")
        assert client.heard("s1") == spoken("Hello there.")
        assert len(worker.assigned) == 1


async def test_a_session_waits_for_a_lone_worker_that_starts_again_and_its_client_is_told(
    open_house: OpenHouse,
) -> None:
    async with (
        open_house(move_timeout_s=0.05, waiting_notice_s=0.05) as house,
        house.worker() as worker,
        sessions_client(house.sessions_url, house.key) as client,
    ):
        worker.allow(characters=3)
        await client.say("s1", "Hello there.")
        await client.until_frames("s1", 3)
        await worker.restart("loading the model")
        waiting = await client.until(Waiting, "s1", count=4)  # longer than for a worker that does not start
        worker.allow(characters=None)
        worker.state, worker.part = WorkerState.ACTIVE, ""
        await client.until(Done, "s1")
    assert waiting.reason == "w1 is starting (loading the model)"
    assert client.heard("s1") == spoken("Hello there.")


async def test_a_worker_that_is_slow_is_left_for_one_with_room(open_house: OpenHouse) -> None:
    async with (
        open_house(stall_timeout_s=0.1) as house,
        house.worker(id="w1") as one,
        house.worker(id="w2") as two,
        sessions_client(house.sessions_url, house.key) as client,
    ):
        allow((one, two), 1)
        await client.say("s1", "Hello there.")
        await client.until_frames("s1", 1)
        _, there = await home((one, two))
        there.allow(characters=None)
        await client.until(Done, "s1")
        assert client.heard("s1") == spoken("Hello there.")
        assert len(there.assigned) == 1


async def test_a_worker_that_drains_lets_a_session_go_that_never_pauses(
    client: SessionsClient, workers: tuple[FakeWorker, FakeWorker]
) -> None:
    allow(workers, 3)
    await client.send("start", "s1", voice="slt")
    for sentence in SENTENCES:
        await client.send("text", "s1", text=sentence)
    await client.until_frames("s1", 3)
    here, there = await home(workers)
    await here.drain(deadline_s=0)
    allow(workers, None)
    await client.send("eos", "s1")
    await client.until(Done, "s1")
    said = "".join(segment.text for segment in client.all(Segment, "s1"))
    assert client.heard("s1") == spoken(said)
    assert "".join(said.split()) == "".join("".join(SENTENCES).split())
    assert len(there.assigned) == 1


async def test_a_worker_whose_disk_is_full_is_passed_over_for_one_that_has_the_voice(
    client: SessionsClient, workers: tuple[FakeWorker, FakeWorker]
) -> None:
    allow(workers, 3)
    await client.say("s1", "Hello there.")
    await client.until_frames("s1", 3)
    here, there = await home(workers)
    here.refusal = AdapterUnavailable("the disk is full")
    allow(workers, None)
    await here.crash()
    await client.until(Done, "s1")
    assert client.heard("s1") == spoken("Hello there.")
    assert len(there.assigned) == 1


async def test_a_voice_that_no_worker_can_load_is_told_at_once(
    client: SessionsClient, workers: tuple[FakeWorker, FakeWorker]
) -> None:
    for worker in workers:
        worker.refusal = AdapterUnavailable("the adapter is damaged")
    await client.say("s1", "Hello there.")
    assert (await client.refusal("s1")).code == "adapter_unavailable"
