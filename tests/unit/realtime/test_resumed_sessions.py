"""A session that goes on at another worker: every sample once, wherever the first worker was lost."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from app.platform.settings import SessionSettings
from app.realtime.journal import Journal
from app.speech.protocol import (
    Assign,
    AudioFrame,
    Cancel,
    Cancelled,
    Done,
    Eos,
    Flush,
    Flushed,
    Message,
    Segment,
    Text,
)
from app.speech.voices import Voice
from tests.support.fakes import FakeEngine
from tests.support.worker_sessions import CODEC, everything, pcm, session
from workers.decoder import Decoder
from workers.send_queue import Outgoing
from workers.session import MAX_FRAMES, Session

pytestmark = pytest.mark.anyio

WRITTEN = "One two three four five six seven. Eight nine ten. " + "A sentence of its own, and not a short one. " * 7
HEAD_SAMPLES = 12 * 32
"""Of a chunk: here it may be made ahead of the codec's lookahead, and is then not exact."""


def obey(speaking: Session, command: Message) -> None:
    match command:
        case Text():
            speaking.push(command.text)
        case Flush():
            speaking.flush()
        case Eos():
            speaking.end()


def resumed(engine: FakeEngine, decoder: Decoder, journal: Journal, *, from_sample: int | None = None) -> Session:
    resumption, commands = journal.move(from_sample=from_sample)
    voice = Voice(id="wren", name="wren", model="fake")
    speaking = Session(
        Assign(session="s2", epoch=1, voice=voice, pace="unpaced", resume=resumption),
        engine=engine,
        decoder=decoder,
        adapter=None,
        settings=SessionSettings(idle_text_s=0.01),
        clock=asyncio.get_running_loop().time,
    )
    for command in commands:
        obey(speaking, command)
    return speaking


async def first(speaking: Session, count: int, journal: Journal) -> list[Outgoing]:
    """The first so many things a session says before its worker is lost."""
    running = asyncio.create_task(speaking.run())
    said: list[Outgoing] = []
    while len(said) < count and (not said or not isinstance(said[-1], Done)):
        said.append(await speaking.send_queue.get())
        journal.received(said[-1])
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    return said


@pytest.fixture(scope="module")
async def undisturbed() -> list[Outgoing]:
    """All that an undisturbed session says."""
    async with Decoder(CODEC, max_sessions=1) as decoder:
        speaking = session(FakeEngine(), decoder)
        speaking.push(WRITTEN)
        speaking.end()
        return await everything(speaking)


@pytest.mark.parametrize("lost_after", [0, 1, 2, 3, 4, 7, 20, 36, 37, 38, 45, 60, 90])
async def test_the_audio_is_that_of_an_undisturbed_session(
    decoder: Decoder, undisturbed: list[Outgoing], lost_after: int
) -> None:
    engine, journal = FakeEngine(), Journal(tags=())
    speaking = session(engine, decoder)
    for command in (Text(session="s", text=WRITTEN), Eos(session="s")):
        journal.sent(command)
        obey(speaking, command)

    before = await first(speaking, lost_after, journal)
    speaking = resumed(engine, decoder, journal)
    after = await everything(speaking)

    frames = [item for item in (*before, *after) if isinstance(item, AudioFrame)]
    ends = [frame.sample_offset + len(frame.audio) // 2 for frame in frames]
    assert [frame.sample_offset for frame in frames] == [0, *ends[:-1]]
    assert [(s.text, s.start_sample, s.end_sample) for s in (*before, *after) if isinstance(s, Segment)] == [
        (s.text, s.start_sample, s.end_sample) for s in undisturbed if isinstance(s, Segment)
    ]
    assert_same(pcm([*before, *after]), undisturbed)
    done, samples = after[-1], len(pcm(undisturbed))
    assert isinstance(done, Done)
    assert (done.samples, done.ledger.tokens) == (samples, 7 * samples // 32)


def assert_same(audio: np.ndarray, expected: list[Outgoing]) -> None:
    should = pcm(expected)
    assert len(audio) == len(should)
    exact = np.ones(len(should), dtype=bool)
    for segment in expected:
        if isinstance(segment, Segment):
            exact[segment.start_sample : segment.start_sample + HEAD_SAMPLES] = False
    assert np.abs(audio - should)[exact].max() < 1e-4


@pytest.mark.parametrize("said", [3, 20, 37, 45, 90])
@pytest.mark.parametrize("unreceived", [1, 500, 3_000, 10**9])
async def test_a_listener_that_has_received_less_gets_it_again_from_the_very_sample(
    decoder: Decoder, undisturbed: list[Outgoing], said: int, unreceived: int
) -> None:
    engine, journal = FakeEngine(), Journal(tags=(), keep_samples=10**6)
    speaking = session(engine, decoder)
    for command in (Text(session="s", text=WRITTEN), Eos(session="s")):
        journal.sent(command)
        obey(speaking, command)
    before = await first(speaking, said, journal)
    received = max(0, journal.samples - unreceived)

    restored = Journal.restored(journal.record(), keep_s=100)
    after = await everything(resumed(engine, decoder, restored, from_sample=received))

    assert_same(np.concatenate((pcm(before)[:received], pcm(after))), undisturbed)


async def test_a_long_sentence_played_again_comes_in_frames_that_fit_a_wire(decoder: Decoder) -> None:
    engine, journal = FakeEngine(frames_per_char=40), Journal(tags=(), keep_samples=10**9)
    speaking = session(engine, decoder)
    for command in (Text(session="s", text="A sentence heard again."), Eos(session="s")):
        journal.sent(command)
        obey(speaking, command)
    said = await first(speaking, 1000, journal)
    again = resumed(engine, decoder, journal, from_sample=0)
    again = [item for item in await everything(again) if isinstance(item, AudioFrame)]

    assert len(again) > 5
    assert max(len(frame.audio) for frame in again) <= 2 * MAX_FRAMES * 32 + 64
    assert np.abs(pcm(list(again)) - pcm(said))[HEAD_SAMPLES:].max() < 1e-4


async def test_codes_that_were_received_are_not_written_again(decoder: Decoder) -> None:
    engine, journal = FakeEngine(frames_per_char=10), Journal(tags=())
    speaking = session(engine, decoder)
    for command in (Text(session="s", text="A few words."), Eos(session="s")):
        journal.sent(command)
        obey(speaking, command)
    await first(speaking, 4, journal)

    await everything(resumed(engine, decoder, journal))

    known = engine.utterances[-1].codes
    assert known
    assert list(known) == np.ravel(engine.codes_of("A few words."))[: len(known)].tolist()


async def test_a_worker_lost_between_the_last_code_and_the_segment_leaves_only_the_segment_to_tell(
    decoder: Decoder,
) -> None:
    engine, journal = FakeEngine(), Journal(tags=())
    speaking = session(engine, decoder)
    for command in (Text(session="s", text="A few words."), Eos(session="s")):
        journal.sent(command)
        obey(speaking, command)
    said = await first(speaking, 1000, Journal(tags=()))
    for item in said:
        if isinstance(item, Segment):
            break
        journal.received(item)

    after = await everything(resumed(engine, decoder, journal))

    assert [type(item).__name__ for item in after] == ["Segment", "Done"]


async def test_a_flush_under_way_is_answered_behind_its_last_sample(decoder: Decoder) -> None:
    engine, journal = FakeEngine(), Journal(tags=())
    speaking = session(engine, decoder)
    for command in (Text(session="s", text="A few words"), Flush(session="s")):
        journal.sent(command)
        obey(speaking, command)
    await first(speaking, 3, journal)

    speaking = resumed(engine, decoder, journal)
    speaking.end()
    said = [item for item in await everything(speaking) if not isinstance(item, AudioFrame)]

    assert [type(item).__name__ for item in said] == ["Segment", "Flushed", "Done"]
    assert isinstance(said[1], Flushed) and said[1].samples == len("A few words") * 32


async def test_a_cancel_that_was_lost_is_carried_out_before_anything_is_said(decoder: Decoder) -> None:
    engine, journal = FakeEngine(), Journal(tags=())
    speaking = session(engine, decoder)
    journal.sent(Text(session="s", text="The old turn goes on. And on."))
    obey(speaking, Text(session="s", text="The old turn goes on. And on."))
    await first(speaking, 4, journal)
    heard_samples = journal.samples
    for command in (Cancel(session="s"), Text(session="s", text="The new one."), Eos(session="s")):
        journal.sent(command)
    resumption, commands = journal.move()
    speaking = Session(
        Assign(session="s2", epoch=1, voice=Voice(id="wren", name="wren", model="fake"), resume=resumption),
        engine=engine,
        decoder=decoder,
        adapter=None,
        settings=SessionSettings(idle_text_s=0.01),
        clock=asyncio.get_running_loop().time,
    )
    running = asyncio.create_task(everything(speaking))
    await asyncio.sleep(0)
    for command in commands:
        if isinstance(command, Cancel):
            await speaking.cancel(command.played_samples)
        else:
            obey(speaking, command)
    said = await running

    assert isinstance(said[0], Cancelled) and (said[0].generation, said[0].samples) == (1, heard_samples)
    assert [item.text for item in said if isinstance(item, Segment)] == ["The new one."]
    assert all(item.generation == 1 for item in said if isinstance(item, AudioFrame))
