"""Words carried from what was spoken to what was written, spread over characters, and guessed where none is heard."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.speech.timing import TimedWord, carried, characters, proportional, words_of

RATE_HZ = 24_000


def burst(length_s: float) -> np.ndarray:
    t = np.arange(round(length_s * RATE_HZ)) / RATE_HZ
    return (0.3 * np.sin(2 * np.pi * 200 * t)).astype(np.float32)


def timed(text: str, *times: tuple[float, float]) -> list[TimedWord]:
    return [TimedWord(word, *at) for word, at in zip(words_of(text), times, strict=True)]


def test_what_was_read_as_words_has_their_time() -> None:
    spoken = timed("It costs three dollars today.", (0, 0.1), (0.1, 0.4), (0.4, 0.7), (0.7, 1.1), (1.1, 1.5))
    assert carried(spoken, "It costs $3 today.") == tuple(
        timed("It costs $3 today.", (0, 0.1), (0.1, 0.4), (0.4, 1.1), (1.1, 1.5))
    )


def test_what_was_not_spoken_lies_where_it_would_have_been() -> None:
    assert carried(timed("Well done.", (0, 0.4), (0.4, 0.9)), "Well 👍 done.") == (
        TimedWord("Well", 0, 0.4),
        TimedWord("👍", 0.4, 0.4),
        TimedWord("done.", 0.4, 0.9),
    )


def test_punctuation_and_capitals_make_no_other_word() -> None:
    spoken = timed("hello there", (0.1, 0.4), (0.4, 0.8))
    assert [it.start_s for it in carried(spoken, "“Hello, THERE!”")] == [0.1, 0.4]


@given(st.text(max_size=60), st.text(max_size=60))
def test_every_written_word_has_a_time_within_the_speech_and_in_order(written: str, said: str) -> None:
    spoken = [TimedWord(word, float(n), n + 1.0) for n, word in enumerate(words_of(said))]
    told = carried(spoken, written)
    assert [it.text for it in told] == (words_of(written) if spoken else [])
    assert all(a.start_s <= b.start_s for a, b in pairwise(told))
    assert all(0 <= it.start_s <= it.end_s <= len(spoken) for it in told)


def test_characters_share_the_time_of_their_word_and_the_last_lasts_to_the_end() -> None:
    told = characters(" ab c", timed("ab c", (0.2, 0.4), (0.5, 0.6)), start_s=0.0, end_s=1.0)
    assert "".join(it.character for it in told) == " ab c"
    assert [round(it.start_s, 3) for it in told] == [0.0, 0.2, 0.3, 0.4, 0.5]
    assert told[-1].end_s == 1.0


@given(st.text(max_size=80))
def test_no_character_is_lost_and_none_begins_before_the_last(text: str) -> None:
    samples = burst(2.0)
    told = characters(text, proportional(text, samples, RATE_HZ), start_s=0.0, end_s=2.0)
    assert "".join(it.character for it in told) == text
    assert all(a.start_s <= b.start_s + 1e-9 for a, b in pairwise(told))


def test_words_are_guessed_to_lie_where_there_is_sound() -> None:
    silence = np.zeros(RATE_HZ, np.float32)
    samples = np.concatenate([silence, burst(1.0), silence, burst(1.0)])
    first, second = proportional("Evenly, evenly,", samples, RATE_HZ)
    assert (first.start_s, first.end_s) == pytest.approx((1.0, 2.0), abs=0.05)
    assert (second.start_s, second.end_s) == pytest.approx((3.0, 4.0), abs=0.05)


def test_silence_and_no_audio_have_words_too() -> None:
    assert len(proportional("One two.", np.zeros(RATE_HZ, np.float32), RATE_HZ)) == 2
    assert len(proportional("One two.", np.zeros(0, np.float32), RATE_HZ)) == 2


def test_a_word_that_is_played_faster_is_earlier() -> None:
    assert TimedWord("a", 1.0, 2.0).moved(1.0, speed=2.0) == TimedWord("a", 1.0, 1.5)
