"""Utterances: exactly one text in one request, for renderers of a script."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from app.errors import CarillonError, InvalidRequest, TextAfterEnd, TextTooLong
from app.speech.protocol import AudioFrame, Segment, Utter, Uttered
from tests.support.fakes import FakeEngine
from tests.support.random_codecs import full_decode
from tests.support.worker_sessions import CODEC, everything, pcm, session
from workers.decoder import Decoder

pytestmark = pytest.mark.anyio


def utter(text: str, *, seed: int | None = None) -> Utter:
    return Utter(session="s1", text=text, seed=seed)


async def test_an_utterance_is_one_request_however_many_sentences_it_has(decoder: Decoder) -> None:
    engine = FakeEngine()
    speaking = session(engine, decoder, pace="background")
    text = "One sentence, quite long. Another! And <b>a</b> third  with\n\na paragraph?"
    speaking.utter(utter(text, seed=7))
    speaking.utter(utter("Second."))
    speaking.end()

    said = await everything(speaking)

    spoken = "One sentence, quite long. Another! And a third with a paragraph?"
    assert [(one.text, one.seed, one.priority) for one in engine.utterances] == [
        (spoken, 7, 2),
        ("Second.", None, 2),
    ]
    assert not [item for item in said if isinstance(item, Segment)]
    ends = [item for item in said if isinstance(item, Uttered)]
    lengths = [32 * len(spoken), 32 * len("Second.")]
    assert [(item.start_sample, item.end_sample) for item in ends] == [(0, lengths[0]), (lengths[0], sum(lengths))]
    assert all(item.complete for item in ends)


async def test_what_is_said_in_the_background_is_exact_from_its_first_sample(decoder: Decoder) -> None:
    engine = FakeEngine()
    speaking = session(engine, decoder, pace="background")
    speaking.utter(utter("A few words."))
    speaking.end()
    audio = pcm(await everything(speaking))
    expected = np.clip(full_decode(CODEC, np.array(engine.codes_of("A few words."))), -1, 1)
    assert np.abs(audio - expected).max() < 1e-4


async def test_codes_that_repeat_are_reported_in_seconds(decoder: Decoder) -> None:
    engine = StuckEngine()
    speaking = session(engine, decoder, pace="background")
    speaking.utter(utter("Stuck."))
    speaking.end()
    (uttered,) = [item for item in await everything(speaking) if isinstance(item, Uttered)]
    assert uttered.repeated_s == pytest.approx(len("Stuck.") * 32 / 24_000, abs=1e-3)


class StuckEngine(FakeEngine):
    """Writes one frame over and over."""

    def codes_of(self, text: str) -> list[list[int]]:
        return [[1, 2, 3, 4, 5, 6, 7]] * len(text)


@pytest.mark.parametrize(
    ("text", "error"),
    [("x" * 601, TextTooLong), (" -- \n", InvalidRequest), ("", InvalidRequest)],
    ids=["too long", "no word", "nothing"],
)
async def test_an_utterance_that_cannot_be_spoken_in_one_is_refused(
    text: str, error: type[CarillonError], decoder: Decoder
) -> None:
    with pytest.raises(error):
        session(FakeEngine(), decoder).utter(utter(text))


async def test_utterances_and_text_do_not_overtake_each_other(decoder: Decoder) -> None:
    speaking = session(FakeEngine(), decoder)
    speaking.push("Some text")
    with pytest.raises(InvalidRequest, match="text is pending"):
        speaking.utter(utter("Now this."))
    other = session(FakeEngine(), decoder)
    other.utter(utter("Now this."))
    with pytest.raises(InvalidRequest, match="utterances are pending"):
        other.push("Some text")


async def test_an_utterance_after_the_end_is_refused(decoder: Decoder) -> None:
    speaking = session(FakeEngine(), decoder)
    speaking.end()
    with pytest.raises(TextAfterEnd):
        speaking.utter(utter("Too late."))


async def test_a_cancel_drops_the_utterances_that_wait(decoder: Decoder) -> None:
    engine = FakeEngine()
    speaking = session(engine, decoder, pace="background")
    engine.pause()
    speaking.utter(utter("Never heard."))
    speaking.utter(utter("Nor this."))
    speaking.end()
    running = asyncio.create_task(everything(speaking))
    while not engine.utterances:
        await asyncio.sleep(0)
    await speaking.cancel(0)
    engine.resume()
    assert not [item for item in await running if isinstance(item, Uttered | AudioFrame)]
    assert [one.text for one in engine.utterances] == ["Never heard."]
