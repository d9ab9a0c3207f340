"""`start.timestamps`: each `segment` says when its words are spoken, in samples as they are delivered."""

from __future__ import annotations

from itertools import pairwise

import pytest

from app.speech.protocol import Cancelled, Done, Flushed, Segment
from tests.support.fake_worker import SAMPLES_PER_CHARACTER
from tests.support.session_client import SessionsClient

pytestmark = pytest.mark.anyio


async def test_words_are_those_that_were_written_and_follow_each_other(client: SessionsClient) -> None:
    await client.say("s1", "It costs **$3.50** today, my friend.", timestamps=True)
    await client.until(Done, "s1")
    (segment,) = client.all(Segment, "s1")
    assert segment.words is not None
    assert [word.text for word in segment.words] == ["It", "costs", "$3.50", "today,", "my", "friend."]
    assert segment.words[0].start_sample >= segment.start_sample
    assert segment.words[-1].end_sample <= segment.end_sample
    for before, after in pairwise(segment.words):
        assert before.start_sample <= before.end_sample <= after.start_sample
    assert segment.approximate in (True, False)


async def test_at_another_speed_they_are_counted_as_delivered(client: SessionsClient) -> None:
    await client.say("s1", "One two three four five six.", timestamps=True, speed=2.0)
    done = await client.until(Done, "s1")
    (segment,) = client.all(Segment, "s1")
    assert segment.words
    assert segment.end_sample // 2 < segment.words[-1].end_sample <= segment.end_sample <= done.samples


async def test_other_languages_have_approximate_ones(client: SessionsClient) -> None:
    await client.say("s1", "Guten Morgen.", timestamps=True, language="de")
    await client.until(Done, "s1")
    (segment,) = client.all(Segment, "s1")
    assert segment.words
    assert segment.approximate is True


async def test_a_flush_is_answered_behind_the_words_it_asked_for(client: SessionsClient) -> None:
    await client.send("start", "s1", voice="slt", timestamps=True)
    await client.send("text", "s1", text="Hello there.")
    await client.send("flush", "s1")
    await client.until(Flushed, "s1")
    assert [segment.words is not None for segment in client.all(Segment, "s1")] == [True]
    await client.send("eos", "s1")
    await client.until(Done, "s1")


async def test_after_a_cancel_the_next_turn_has_its_own(client: SessionsClient) -> None:
    await client.send("start", "s1", voice="slt", timestamps=True)
    await client.send("text", "s1", text="This is a sentence that is not heard to its end. " * 3)
    await client.until_frames("s1", 1)
    await client.send("cancel", "s1", played_samples=SAMPLES_PER_CHARACTER)
    cancelled = await client.until(Cancelled, "s1")
    heard = len(client.all(Segment, "s1"))
    await client.send("text", "s1", text="Yes please.")
    await client.send("eos", "s1")
    await client.until(Done, "s1")
    (segment,) = client.all(Segment, "s1")[heard:]
    assert segment.words is not None
    assert [word.text for word in segment.words] == ["Yes", "please."]
    assert cancelled.samples <= segment.words[0].start_sample < segment.words[-1].end_sample <= segment.end_sample


async def test_who_did_not_ask_gets_none(client: SessionsClient) -> None:
    await client.say("s1", "One.")
    await client.until(Done, "s1")
    assert [(segment.words, segment.approximate) for segment in client.all(Segment, "s1")] == [(None, None)]
