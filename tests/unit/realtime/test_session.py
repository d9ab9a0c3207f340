"""A worker's session: real splitter, real decoder on a tiny codec, a scripted engine."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from app.errors import CarillonError, DeadlineExceeded, EngineFailed, SlowReader, TextAfterEnd, TextTooLong
from app.speech.protocol import (
    AssignedPace,
    AudioFrame,
    Cancelled,
    Done,
    Flushed,
    PartialChunk,
    Resumption,
    Segment,
)
from app.speech.text import marks
from tests.support.fakes import FakeEngine
from tests.support.random_codecs import full_decode
from tests.support.worker_sessions import CODEC, everything, pcm, session, until
from workers.decoder import Decoder
from workers.engine import EngineLoad

pytestmark = pytest.mark.anyio


async def test_what_is_sent_is_every_sample_of_every_chunk_in_order(decoder: Decoder) -> None:
    engine = FakeEngine()
    speaking = session(engine, decoder)
    speaking.push("One two three four. Five six seven.")
    speaking.end()

    said = await everything(speaking)

    texts = [item.text for item in said if isinstance(item, Segment)]
    assert " ".join(texts) == "One two three four. Five six seven."
    expected = np.concatenate([full_decode(CODEC, np.array(engine.codes_of(text))) for text in texts])
    audio = pcm(said)
    assert len(audio) == len(expected) == sum(map(len, texts)) * engine.layout.samples_per_frame
    # Beyond the provisional head and its fade the stream is exact to the 16-bit step.
    exact = slice(12 * 32, len(texts[0]) * 32)
    assert np.abs(audio[exact] - np.clip(expected[exact], -1, 1)).max() < 1e-4


async def test_frames_are_numbered_without_gaps_and_placed_by_sample(decoder: Decoder) -> None:
    speaking = session(FakeEngine(), decoder)
    speaking.push("A few words to hear.")
    speaking.end()

    frames = [item for item in await everything(speaking) if isinstance(item, AudioFrame)]

    assert [frame.sequence for frame in frames] == list(range(len(frames)))
    ends = np.cumsum([len(frame.audio) // 2 for frame in frames])
    assert [frame.sample_offset for frame in frames] == [0, *ends[:-1]]


async def test_a_letter_at_a_time_says_the_same_as_all_at_once(decoder: Decoder) -> None:
    text = "Mr. Smith paid $3.50. <laugh> He laughed."
    whole, letters = session(FakeEngine(), decoder), session(FakeEngine(), decoder)
    whole.push(text)
    for letter in text:
        letters.push(letter)
    whole.end()
    letters.end()

    np.testing.assert_array_equal(pcm(await everything(whole)), pcm(await everything(letters)))


async def test_audio_leaves_before_the_text_has_ended(decoder: Decoder) -> None:
    speaking = session(FakeEngine(), decoder)
    running = asyncio.create_task(speaking.run())
    speaking.push("The first sentence. The sec")

    await until(speaking, Segment)

    speaking.push("ond.")
    speaking.end()
    last = (await until(speaking, Done))[-1]
    await running
    assert isinstance(last, Done)
    assert last.samples == len("The first sentence.The second.") * 32


async def test_text_that_pauses_is_spoken_as_far_as_it_goes(decoder: Decoder) -> None:
    speaking = session(FakeEngine(), decoder)
    running = asyncio.create_task(speaking.run())
    speaking.push("three whole words ")
    segment = (await until(speaking, Segment))[-1]
    running.cancel()
    assert isinstance(segment, Segment)
    assert segment.text.startswith("three whole")


async def test_a_flush_is_answered_after_its_last_sample(decoder: Decoder) -> None:
    speaking = session(FakeEngine(), decoder)
    running = asyncio.create_task(speaking.run())
    speaking.push("no sentence end")
    speaking.flush()

    flushed = (await until(speaking, Flushed))[-1]

    running.cancel()
    assert isinstance(flushed, Flushed)
    assert flushed.samples == len("no sentence end") * 32


async def test_a_flush_without_text_is_answered_at_once(decoder: Decoder) -> None:
    speaking = session(FakeEngine(), decoder)
    running = asyncio.create_task(speaking.run())
    speaking.flush()
    flushed = (await until(speaking, Flushed))[-1]
    running.cancel()
    assert isinstance(flushed, Flushed)
    assert flushed.samples == 0


async def test_a_cancel_ends_the_engine_request_and_the_next_turn_speaks(decoder: Decoder) -> None:
    engine = FakeEngine(frames_per_char=20)
    speaking = session(engine, decoder)
    running = asyncio.create_task(speaking.run())
    speaking.push("A sentence nobody wants to hear. ")
    speaking.flush()
    await engine.progressed.wait()
    engine.pause()

    await speaking.cancel(played_samples=None)

    assert not engine.running
    cancelled = (await until(speaking, Cancelled))[-1]
    assert isinstance(cancelled, Cancelled)
    assert cancelled.generation == 1
    engine.resume()
    speaking.push("Better.")
    speaking.end()
    said = await until(speaking, Done)
    await running
    assert {item.generation for item in said if isinstance(item, AudioFrame)} == {1}
    assert [item.text for item in said if isinstance(item, Segment)] == ["Better."]
    assert not any(isinstance(item, Flushed) for item in said)


@pytest.mark.parametrize("ending", ["flush", "end"])
async def test_a_cancel_drops_the_sentences_behind_the_one_being_spoken(ending: str, decoder: Decoder) -> None:
    engine = FakeEngine(frames_per_char=20)
    speaking = session(engine, decoder, max_chunk_chars=60)
    running = asyncio.create_task(speaking.run())
    speaking.push("The first sentence is being spoken now, at length. The second one nobody wants to hear any more. ")
    speaking.flush() if ending == "flush" else speaking.end()
    await engine.progressed.wait()

    await speaking.cancel(played_samples=None)

    if ending == "flush":
        speaking.push("Better.")
        speaking.end()
    said = await until(speaking, Done)
    await running
    assert not any(isinstance(item, Flushed) for item in said)
    behind = said[[isinstance(item, Cancelled) for item in said].index(True) + 1 :]
    spoken = "Better." if ending == "flush" else ""
    assert [item.text for item in behind if isinstance(item, Segment)] == ([spoken] if spoken else [])
    assert len(engine.utterances) == (2 if spoken else 1)


async def test_audio_a_cancel_takes_back_does_not_count_as_sent(decoder: Decoder) -> None:
    engine = FakeEngine(frames_per_char=20)
    speaking = session(engine, decoder)
    running = asyncio.create_task(speaking.run())
    speaking.push("A sentence that is cut short. ")
    *_, first = await until(speaking, AudioFrame)
    assert isinstance(first, AudioFrame)
    while speaking.send_queue.empty():
        await asyncio.sleep(0)

    await speaking.cancel(played_samples=None)

    sent = len(first.audio) // 2
    cancelled = (await until(speaking, Cancelled))[-1]
    assert isinstance(cancelled, Cancelled)
    assert cancelled.samples == sent
    speaking.push("Next.")
    speaking.end()
    frames = [item for item in await until(speaking, Done) if isinstance(item, AudioFrame)]
    await running
    assert (frames[0].sequence, frames[0].sample_offset) == (1, sent)


async def test_a_turn_cancelled_before_it_was_played_is_not_in_the_ledger(decoder: Decoder) -> None:
    engine = FakeEngine()
    engine.pause()
    time_s = [0.0]
    speaking = session(engine, decoder, clock=lambda: time_s[0])
    running = asyncio.create_task(speaking.run())
    speaking.push("Never mind. ")
    speaking.flush()
    while not engine.running:
        await asyncio.sleep(0)
    await speaking.cancel(played_samples=0)
    time_s[0] = 100.0
    engine.resume()
    speaking.push("Now.")
    speaking.end()
    done = (await until(speaking, Done))[-1]
    await running
    assert isinstance(done, Done)
    assert done.ledger.first_audio_ms == 0.0


async def test_silence_in_text_is_no_utterance(decoder: Decoder) -> None:
    engine = FakeEngine()
    speaking = session(engine, decoder)
    speaking.push(" ...  \n\t !? ")
    speaking.end()

    said = await everything(speaking)

    assert not engine.utterances
    assert isinstance(said[-1], Done)
    assert said[-1].samples == 0


async def test_text_after_the_end_is_refused(decoder: Decoder) -> None:
    speaking = session(FakeEngine(), decoder)
    speaking.end()
    with pytest.raises(TextAfterEnd):
        speaking.push("more")


async def test_an_engine_failure_ends_the_session_with_its_own_error(decoder: Decoder) -> None:
    engine = FakeEngine()
    engine.failing = EngineFailed("the engine failed")
    speaking = session(engine, decoder)
    speaking.push("Never heard.")
    speaking.end()
    with pytest.raises(EngineFailed):
        await speaking.run()


async def test_an_engine_that_writes_nothing_is_given_up(decoder: Decoder) -> None:
    engine = FakeEngine()
    engine.pause()
    speaking = session(engine, decoder, stall_timeout_s=0.05)
    speaking.push("Never heard.")
    speaking.end()
    with pytest.raises(DeadlineExceeded, match="wrote nothing"):
        await speaking.run()
    assert not engine.running


class CrowdedEngine(FakeEngine):
    """Writes nothing, and reports that requests wait."""

    def load_now(self) -> EngineLoad:
        return EngineLoad(running=1, waiting=1)


@pytest.mark.parametrize(
    ("engine", "pace", "code"),
    [
        (CrowdedEngine, "background", "overloaded"),
        (CrowdedEngine, "realtime", "deadline_exceeded"),
        (FakeEngine, "background", "deadline_exceeded"),
    ],
    ids=["a narration waits for its turn", "a listener waits", "none is before it"],
)
async def test_to_wait_in_the_engine_is_a_fault_unless_others_go_first(
    engine: type[FakeEngine], pace: AssignedPace, code: str, decoder: Decoder
) -> None:
    crowded = engine()
    crowded.pause()
    speaking = session(crowded, decoder, pace=pace, stall_timeout_s=0.05)
    speaking.push("Never heard.")
    speaking.end()
    with pytest.raises(CarillonError) as ended:
        await speaking.run()
    assert ended.value.code == code


async def test_a_listener_that_takes_nothing_ends_its_own_session(decoder: Decoder) -> None:
    speaking = session(FakeEngine(frames_per_char=400), decoder, slow_reader_timeout_s=0.05, buffer_s=0.01)
    speaking.push("A long story.")
    speaking.end()
    with pytest.raises(SlowReader):
        await speaking.run()


async def test_a_session_without_text_ends_after_its_idle_time(decoder: Decoder) -> None:
    with pytest.raises(DeadlineExceeded, match="no text"):
        await session(FakeEngine(), decoder, idle_timeout_s=0.05).run()


async def test_later_text_waits_while_the_listener_has_enough_even_after_its_end(decoder: Decoder) -> None:
    engine = FakeEngine(frames_per_char=10)  # 13 ms of audio a character
    time_s = [0.0]
    speaking = session(engine, decoder, pace="realtime", lead_s=0.05, clock=lambda: time_s[0])
    running = asyncio.create_task(speaking.run())
    speaking.push("Long. Second sentence. ")
    await until(speaking, Segment)
    speaking.push("Third.")
    speaking.end()
    for _ in range(100):
        await asyncio.sleep(0)
    assert [utterance.text for utterance in engine.utterances] == ["Long."]

    time_s[0] = 100.0

    await until(speaking, Done)
    await running
    assert " ".join(utterance.text for utterance in engine.utterances) == "Long. Second sentence. Third."


async def test_the_ledger_accounts_for_the_first_audio(decoder: Decoder) -> None:
    speaking = session(FakeEngine(), decoder)
    speaking.push("A short one.")
    speaking.end()
    done = (await everything(speaking))[-1]
    assert isinstance(done, Done)
    ledger = done.ledger
    parts = (ledger.text_ms, ledger.prefill_ms, ledger.first_frames_ms, ledger.decode_ms)
    assert all(part is not None for part in parts)
    assert sum(part for part in parts if part is not None) == pytest.approx(ledger.first_audio_ms, abs=0.01)
    assert ledger.tokens == 7 * len("A short one.")
    assert ledger.chunks == 1
    assert ledger.queue_ms is None  # the front door's part is not invented here


def test_every_session_error_has_a_code_of_its_own() -> None:
    kinds = (CarillonError, DeadlineExceeded, EngineFailed, SlowReader, TextAfterEnd, TextTooLong)
    assert len({kind.code for kind in kinds}) == len(kinds)


async def test_a_pause_is_silence_and_numbers_are_spoken_as_words_while_segments_say_what_was_written(
    decoder: Decoder,
) -> None:
    engine = FakeEngine()
    speaking = session(engine, decoder)
    speaking.push(f"I have 21. {marks.pause_mark(0.5)} Go.")
    speaking.end()

    said = await everything(speaking)

    assert [utterance.text for utterance in engine.utterances] == ["I have twenty one.", "Go."]
    segments = [item for item in said if isinstance(item, Segment)]
    assert [segment.text for segment in segments] == ["I have 21.", "", "Go."]
    assert segments[1].end_sample - segments[1].start_sample == 12_000
    assert not pcm(said)[segments[1].start_sample : segments[1].end_sample].any()


async def test_a_pause_goes_on_at_another_worker_where_the_listener_is(decoder: Decoder) -> None:
    chunk = PartialChunk(text=marks.pause_mark(0.5), start_sample=0)
    speaking = session(FakeEngine(), decoder, resume=Resumption(samples=4_000, chunks=1, chunk=chunk))
    speaking.end()

    said = await everything(speaking)

    assert len(pcm(said)) == 8_000


async def test_words_at_another_rate_take_longer_and_the_others_do_not(decoder: Decoder) -> None:
    engine = FakeEngine()
    speaking = session(engine, decoder)
    speaking.push(f"One two three. {marks.rate_mark(0.5)} One two three. {marks.rate_mark(1)} One two three.")
    speaking.end()

    said = await everything(speaking)

    assert [utterance.text for utterance in engine.utterances] == ["One two three."] * 3
    segments = [item for item in said if isinstance(item, Segment)]
    lengths = [segment.end_sample - segment.start_sample for segment in segments]
    assert [segment.text for segment in segments] == ["One two three."] * 3
    assert lengths == [lengths[0], 2 * lengths[0] + 240, lengths[0]]  # atempo's tail of 10 ms
    assert len(pcm(said)) == segments[-1].end_sample


async def test_a_slow_chunk_goes_on_at_another_worker_at_the_very_sample(decoder: Decoder) -> None:
    text = f"{marks.rate_mark(0.5)}One two three."
    first = session(FakeEngine(), decoder)
    first.push(text)
    first.end()
    said = await everything(first)
    codes = np.frombuffer(b"".join(item.codes for item in said if isinstance(item, AudioFrame)), np.uint16)
    chunk = PartialChunk(text=text, start_sample=0, codes=tuple(map(int, codes)), whole=True)

    second = session(FakeEngine(), decoder, resume=Resumption(samples=5_000, chunks=1, chunk=chunk, rate=0.5))
    second.end()

    assert np.array_equal(pcm(await everything(second)), pcm(said)[5_000:])
