"""Words found in audio, against recordings of which it is known where each word lies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest
import soundfile

from app.hearing.aligner import Aligner, open_aligner
from app.hearing.aligner_child import guessed
from tests.support.deadlines import HANG_S
from tests.support.speech import CONSENT_PARTS

pytestmark = pytest.mark.anyio

RATE_HZ = 16_000
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@pytest.fixture
async def aligner() -> AsyncIterator[Aligner]:
    async with open_aligner(timeout_s=HANG_S) as aligner:
        yield aligner


def counted(*digits: int) -> tuple[str, np.ndarray, list[tuple[float, float]]]:
    """Digits read one after the other: their words, the audio, and between which times each word must lie."""
    silence = np.zeros(RATE_HZ // 5, np.float32)
    parts, spans, samples = [silence], [], len(silence)
    for digit in digits:
        audio, rate_hz = soundfile.read(CONSENT_PARTS / f"{digit}.flac", dtype="float32")
        assert rate_hz == RATE_HZ
        spans.append((samples / RATE_HZ, (samples + len(audio)) / RATE_HZ))
        parts += [audio, silence]
        samples += len(audio) + len(silence)
    return ", ".join(NAMES[digit] for digit in digits) + ".", np.concatenate(parts), spans


async def test_each_word_is_found_where_it_was_read(aligner: Aligner) -> None:
    text, audio, spans = counted(3, 1, 4, 5, 9, 2, 6)
    timing = await aligner.align(text, audio, sample_rate_hz=RATE_HZ, language="en-GB")
    assert not timing.approximate
    assert [word.text for word in timing.words] == text.split()
    for word, (start_s, end_s) in zip(timing.words, spans, strict=True):
        assert start_s - 0.1 <= word.start_s < word.end_s <= end_s + 0.1


async def test_a_word_of_no_dictionary_is_found_among_others(aligner: Aligner) -> None:
    text, audio, spans = counted(3, 7, 9)
    timing = await aligner.align(text.replace("seven", "sevven"), audio, sample_rate_hz=RATE_HZ, language="en")
    assert not timing.approximate
    assert spans[1][0] - 0.1 <= timing.words[1].start_s < timing.words[1].end_s <= spans[1][1] + 0.1


async def test_several_ask_at_once_and_each_has_its_own(aligner: Aligner) -> None:
    asked = [counted(1, 2), counted(3, 4, 5), counted(6)]
    told = await asyncio.gather(
        *(aligner.align(text, audio, sample_rate_hz=RATE_HZ, language="en") for text, audio, _ in asked)
    )
    assert [[word.text for word in timing.words] for timing in told] == [text.split() for text, _, _ in asked]


@pytest.mark.parametrize(("text", "language"), [("drei, eins.", "de"), ("three — 👍 nine.", "en"), ("…", "en")])
async def test_what_cannot_be_followed_is_guessed_and_says_so_or_lies_beside_the_rest(
    aligner: Aligner, text: str, language: str
) -> None:
    _, audio, _ = counted(3, 9)
    timing = await aligner.align(text, audio, sample_rate_hz=RATE_HZ, language=language)
    assert [word.text for word in timing.words] == text.split()
    assert timing.approximate == (language == "de" or text == "…")


async def test_no_audio_is_no_fault(aligner: Aligner) -> None:
    timing = await aligner.align("Nothing.", np.zeros(0, np.float32), sample_rate_hz=RATE_HZ, language="en")
    assert timing.approximate


async def test_one_who_asked_and_left_spoils_no_other_answer(aligner: Aligner) -> None:
    text, audio, _ = counted(1, 2, 3, 4, 5)
    left = asyncio.create_task(aligner.align(text, audio, sample_rate_hz=RATE_HZ, language="en"))
    await asyncio.sleep(0)
    left.cancel()
    await asyncio.gather(left, return_exceptions=True)
    text, audio, _ = counted(6)
    timing = await aligner.align(text, audio, sample_rate_hz=RATE_HZ, language="en")
    assert [word.text for word in timing.words] == ["six."]


def test_letters_become_phones() -> None:
    assert guessed("quillfeather") == "K W IH L L F IY TH ER"
    assert guessed("'") == "AH"
