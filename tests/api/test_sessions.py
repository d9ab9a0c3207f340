"""WS /v1/sessions: many sessions on one socket, cancelled, paced by credit, spoken to the end."""

from __future__ import annotations

from itertools import pairwise

import pytest

from app.speech.protocol import AudioFrame, Cancelled, Done, Flushed, GoAway, Pong, Ready, Segment
from tests.api.conftest import House, OpenHouse
from tests.support.fake_worker import SAMPLES_PER_CHARACTER, FakeWorker
from tests.support.session_client import SessionsClient, sessions_client, spoken, still_speaks

pytestmark = pytest.mark.anyio


# The ordinary way.


async def test_a_session_from_start_to_done(client: SessionsClient, worker: FakeWorker) -> None:
    await client.say("s1", "Hi there.")
    done = await client.until(Done, "s1")
    (ready,) = client.all(Ready, "s1")
    assert (ready.voice, ready.model, ready.worker, ready.stand_in) == ("slt", "standin", worker.id, True)
    assert ready.limits.max_pending_chars == 20_000
    (segment,) = client.all(Segment, "s1")
    assert (segment.text, segment.start_sample) == ("Hi there.", 0)
    assert segment.end_sample == done.samples == 9 * SAMPLES_PER_CHARACTER
    assert client.heard("s1") == spoken("Hi there.")


async def test_frames_are_numbered_without_gaps_and_say_where_they_belong(client: SessionsClient) -> None:
    await client.say("s1", "Hello.")
    await client.until(Done, "s1")
    frames = client.frames["s1"]
    assert [frame.sequence for frame in frames] == list(range(len(frames)))
    for before, after in pairwise(frames):
        assert after.sample_offset == before.sample_offset + len(before.audio) // 2


async def test_done_carries_the_whole_ledger(client: SessionsClient) -> None:
    await client.say("s1", "Hello.")
    ledger = (await client.until(Done, "s1")).ledger
    parts = (ledger.queue_ms, ledger.route_ms, ledger.prefill_ms, ledger.decode_ms, ledger.first_audio_ms)
    assert all(part is not None and part >= 0 for part in parts)
    assert ledger.samples == 6 * SAMPLES_PER_CHARACTER


@pytest.mark.parametrize("speed", [0.5, 2.0])
async def test_at_another_speed_every_count_is_of_what_is_delivered(client: SessionsClient, speed: float) -> None:
    await client.send("start", "s1", voice="slt", speed=speed)
    await client.send("text", "s1", text="The bells ring.")
    await client.send("flush", "s1")
    flushed = await client.until(Flushed, "s1")
    await client.send("text", "s1", text=" They ring again.")
    await client.send("eos", "s1")
    done = await client.until(Done, "s1")
    first, second = client.all(Segment, "s1")
    assert (first.start_sample, second.start_sample) == (0, first.end_sample)
    assert flushed.samples == first.end_sample == round(15 * SAMPLES_PER_CHARACTER / speed)
    assert second.end_sample == round(31 * SAMPLES_PER_CHARACTER / speed)
    assert len(client.heard("s1")) // 2 == done.samples == done.ledger.samples
    assert 0 <= done.samples - second.end_sample <= 240  # atempo's tail of 10 ms
    for before, after in pairwise(client.frames["s1"]):
        assert after.sample_offset == before.sample_offset + len(before.audio) // 2


async def test_at_another_speed_credit_and_what_was_played_are_counted_so_too(
    client: SessionsClient, worker: FakeWorker
) -> None:
    await client.say("s1", "One two three four.", speed=2.0, window_samples=4_800)
    await client.until_frames("s1", 1)
    await worker.until_leases(0)
    await client.send("ping", id="read")
    await client.until(Pong)
    assert 2_400 < len(client.heard("s1")) // 2 <= 4_800
    await client.send("cancel", "s1", played_samples=9 * SAMPLES_PER_CHARACTER // 2)
    cancelled = await client.until(Cancelled, "s1")
    assert (cancelled.spoken_text, cancelled.samples) == ("One", 9 * SAMPLES_PER_CHARACTER // 2)


async def test_at_another_speed_nothing_of_a_turn_is_heard_in_the_next(client: SessionsClient) -> None:
    await client.send("start", "s1", voice="slt", speed=2.0)
    await client.send("text", "s1", text="The bells ring.")
    await client.send("flush", "s1")
    await client.until(Flushed, "s1")
    await client.send("cancel", "s1")
    cancelled = await client.until(Cancelled, "s1")
    await client.send("text", "s1", text="Next.")
    await client.send("eos", "s1")
    done = await client.until(Done, "s1")
    ours = [frame for frame in client.frames["s1"] if frame.generation == 1]
    assert ours[0].sample_offset == cancelled.samples == client.all(Segment, "s1")[-1].start_sample
    assert ours[0].sample_offset + sum(len(frame.audio) // 2 for frame in ours) == done.samples


@pytest.mark.parametrize("where", ["start", "text"])
async def test_a_client_that_tells_when_the_turn_ended_gets_the_whole_way(client: SessionsClient, where: str) -> None:
    turn = {"ended_at": 1000.0, "sent_at": 1001.5}  # by a clock of its own
    await client.send("start", "s1", voice="slt", **({"turn": turn} if where == "start" else {}))
    await client.send("text", "s1", text="Hello.", **({"turn": turn} if where == "text" else {}))
    await client.send("eos", "s1")
    done = await client.until(Done, "s1")
    assert done.ledger.turn_text_ms is not None
    assert done.ledger.turn_ms is not None
    assert 1500 <= done.ledger.turn_text_ms < done.ledger.turn_ms
    assert done.ignored == ()


async def test_a_turn_that_ended_long_ago_is_a_clock_that_is_wrong(client: SessionsClient) -> None:
    await client.send("start", "s1", voice="slt")
    await client.send("text", "s1", text="Hello.", turn={"ended_at": 1000.0})
    await client.send("eos", "s1")
    done = await client.until(Done, "s1")
    assert done.ledger.turn_ms is None
    assert done.ignored == ("turn.ended_at",)


async def test_audio_comes_before_the_text_has_ended(client: SessionsClient) -> None:
    await client.send("start", "s1", voice="slt")
    await client.send("text", "s1", text="One. ")
    await client.until_frames("s1", 4)
    await client.send("text", "s1", text="Two.")
    await client.send("eos", "s1")
    await client.until(Done, "s1")
    assert client.heard("s1") == spoken("One.Two.")


async def test_text_may_come_a_character_at_a_time(client: SessionsClient) -> None:
    await client.send("start", "s1", voice="slt")
    for character in "Hello you.":
        await client.send("text", "s1", text=character)
    await client.send("eos", "s1")
    await client.until(Done, "s1")
    assert client.heard("s1") == spoken("Hello you.")


async def test_flush_speaks_what_is_there_and_says_so(client: SessionsClient) -> None:
    await client.send("start", "s1", voice="slt")
    await client.send("text", "s1", text="no full stop")
    await client.send("flush", "s1")
    flushed = await client.until(Flushed, "s1")
    assert flushed.samples == 12 * SAMPLES_PER_CHARACTER
    assert client.heard("s1") == spoken("no full stop")


async def test_a_session_can_be_spoken_in_any_format(client: SessionsClient) -> None:
    await client.say("s1", "Hello.", format="flac")
    await client.until(Done, "s1")
    assert client.heard("s1").startswith(b"fLaC")


async def test_sessions_on_one_socket_are_spoken_side_by_side(client: SessionsClient) -> None:
    for name in ("a", "b", "c"):
        await client.say(name, f"This is {name}.")
    for name in ("a", "b", "c"):
        await client.until(Done, name)
        assert client.heard(name) == spoken(f"This is {name}.")


async def test_an_id_is_free_again_after_done(client: SessionsClient) -> None:
    await client.say("s1", "One.")
    await client.until(Done, "s1")
    await client.say("s1", "Two.")
    await client.until(Done, "s1", count=2)
    assert client.heard("s1") == spoken("One.Two.")


async def test_ping_is_answered_with_its_id(client: SessionsClient) -> None:
    await client.send("ping", id="p1")
    assert (await client.until(Pong)).id == "p1"


async def test_a_server_that_stops_says_goaway_and_lets_sessions_end(house: House, worker: FakeWorker) -> None:
    async with sessions_client(house.sessions_url, house.key) as client:
        worker.allow(characters=1)
        await client.say("s1", "Let me finish.")
        await client.until_frames("s1", 1)
        house.server.should_exit = True
        assert (await client.until(GoAway)).deadline_ms == 3_000
        await client.send("start", "s2", voice="slt")
        refusal = await client.refusal("s2")
        assert (refusal.code, refusal.closed, refusal.retryable) == ("overloaded", True, True)
        worker.allow(characters=None)
        await client.until(Done, "s1")
        assert client.heard("s1") == spoken("Let me finish.")
        await client.socket.wait_closed()
        assert client.socket.close_code == 1012


async def test_sessions_are_counted_by_their_end(client: SessionsClient, house: House, worker: FakeWorker) -> None:
    await client.say("s1", "Hello.")
    await client.until(Done, "s1")
    await client.send("start", "s2", voice="nobody")
    await client.refusal("s2")
    page = (await house.http.get("/metrics")).text
    assert 'carillon_latency_seconds_count{edge="sessions",part="first_audio"} 1.0' in page
    await worker.until_leases(0)
    page = (await house.http.get("/metrics")).text
    assert 'carillon_sessions_total{edge="sessions",outcome="done"} 1.0' in page
    assert 'carillon_sessions_total{edge="sessions",outcome="unknown_voice"} 1.0' in page


# Cancel.


async def test_after_cancel_nothing_old_is_heard_and_the_session_goes_on(
    client: SessionsClient, worker: FakeWorker
) -> None:
    worker.allow(characters=3)
    await client.send("start", "s1", voice="slt")
    await client.send("text", "s1", text="A long first turn.")
    await client.until_frames("s1", 3)
    await client.send("cancel", "s1")
    cancelled = await client.until(Cancelled, "s1")
    worker.allow(characters=None)
    before = len(client.frames["s1"])
    await client.send("text", "s1", text="Second.")
    await client.send("eos", "s1")
    await client.until(Done, "s1")
    assert all(frame.generation == cancelled.generation for frame in client.frames["s1"][before:])
    assert b"".join(frame.audio for frame in client.frames["s1"][before:]) == spoken("Second.")
    assert [segment.text for segment in client.all(Segment, "s1")] == ["Second."]


async def test_cancel_drops_old_audio_at_the_edge_before_the_worker_has_answered(
    client: SessionsClient, worker: FakeWorker
) -> None:
    await client.send("start", "s1", voice="slt", pace="unpaced")
    await client.send("text", "s1", text="x" * 2_000 + ".")
    await client.until_frames("s1", 1)
    await client.send("cancel", "s1")
    await client.send("ping")
    await client.until(Pong)
    await client.until(Cancelled, "s1")
    await client.send("text", "s1", text="New.")
    await client.send("eos", "s1")
    await client.until(Done, "s1")
    pong = next(index for index, item in enumerate(client.log) if isinstance(item, Pong))
    late = [item for item in client.log[pong:] if isinstance(item, AudioFrame) and item.generation == 0]
    assert not late


async def test_cancel_drops_text_that_still_waits_for_a_worker(open_house: OpenHouse) -> None:
    async with (
        open_house(queue_timeout_s=10) as house,
        house.worker(capacity=1) as worker,
        sessions_client(house.sessions_url, house.key) as client,
    ):
        worker.allow(characters=0)
        await client.say("first", "Holds the place.")
        await worker.until_sessions(1)
        await client.send("start", "second", voice="slt")
        await client.send("text", "second", text="Never heard.")
        await client.send("cancel", "second")
        await client.send("text", "second", text="Heard.")
        await client.send("eos", "second")
        worker.allow(characters=None)
        await client.until(Done, "second")
        assert client.heard("second") == spoken("Heard.")


async def test_cancels_in_one_burst_are_each_answered_and_the_next_turn_is_heard(client: SessionsClient) -> None:
    await client.send("start", "s1", voice="slt")
    await client.send("text", "s1", text="Old.")
    await client.send("cancel", "s1")
    await client.send("cancel", "s1")
    await client.send("text", "s1", text="New one.")
    await client.send("eos", "s1")
    await client.until(Done, "s1")
    assert client.heard("s1").endswith(spoken("New one."))


async def test_cancel_after_eos_ends_the_session(client: SessionsClient, worker: FakeWorker) -> None:
    worker.allow(characters=2)
    await client.say("s1", "A long last turn.")
    await client.until_frames("s1", 2)
    await client.send("cancel", "s1")
    await client.until(Done, "s1")
    assert client.all(Cancelled, "s1")
    assert client.heard("s1") == spoken("A ")


async def test_cancel_after_an_eos_that_still_waits_for_a_worker_ends_the_session(open_house: OpenHouse) -> None:
    async with (
        open_house(queue_timeout_s=10) as house,
        house.worker(capacity=1) as worker,
        sessions_client(house.sessions_url, house.key) as client,
    ):
        worker.allow(characters=0)
        await client.say("first", "Holds the place.")
        await worker.until_sessions(1)
        await client.say("second", "Never heard.")
        await client.send("cancel", "second")
        worker.allow(characters=None)
        await client.until(Done, "second")
        assert client.heard("second") == b""


async def test_cancel_after_the_worker_is_done_says_what_was_heard(client: SessionsClient, worker: FakeWorker) -> None:
    await client.say("s1", "One two three four.", window_samples=4_800)
    await client.until_frames("s1", 1)
    await worker.until_leases(0)
    await client.send("cancel", "s1", played_samples=9 * SAMPLES_PER_CHARACTER)
    cancelled = await client.until(Cancelled, "s1")
    assert cancelled.spoken_text == "One"
    await client.until(Done, "s1")


# Credit.


async def test_no_more_audio_is_sent_than_the_window_and_credit_allow(client: SessionsClient) -> None:
    await client.say("s1", "Hello you there.", window_samples=5_000)
    await client.send("ping")
    await client.until(Pong)
    await client.say("other", "Done.")
    await client.until(Done, "other")
    assert len(client.heard("s1")) == 5_000 * 2
    await client.send("credit", "s1", samples=1_000)
    await client.send("credit", "s1", samples=100_000)
    await client.until(Done, "s1")
    assert client.heard("s1") == spoken("Hello you there.")


async def test_a_session_without_credit_never_delays_another(client: SessionsClient) -> None:
    await client.say("stuck", "x" * 400 + ".", window_samples=4_800)
    await client.until_frames("stuck", 1)
    assert await still_speaks(client)
    assert not client.all(Done, "stuck")


async def test_audio_nobody_takes_closes_its_session_only(open_house: OpenHouse) -> None:
    async with (
        open_house(slow_reader_timeout_s=0.3, buffer_s=0.5) as house,
        house.worker() as worker,
        sessions_client(house.sessions_url, house.key) as client,
    ):
        await client.say("stuck", "x" * 400 + ".", window_samples=4_800)
        error = await client.refusal("stuck")
        assert (error.code, error.closed) == ("slow_reader", True)
        await worker.until_leases(0)
        assert await still_speaks(client)
