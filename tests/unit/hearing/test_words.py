"""Words, and how many of them were heard."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.hearing.words import digits_of, edits, word_agreement, word_error_rate, words_of


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("It’s <laugh> LATE, isn't it?", "it's late isn't it"),
        ("Twenty-two bells", "twenty two bells"),
        ("12 eggs for $3.50", "twelve eggs for three dollars fifty"),
        ("$5 or £1,250", "five dollars or one thousand two hundred fifty pounds"),
        ("at 7:30 and 8:05, not 9:00", "at seven thirty and eight oh five not nine"),
        ("the 3rd, 12th, 20th, 8th and 101st", "the third twelfth twentieth eighth and one hundred first"),
        ("3.14", "three point one four"),
        ("50% or 2 %", "fifty percent or two percent"),
        ("1984, 1905, 1900", "nineteen eighty four nineteen oh five nineteen hundred"),
        ("2005", "two thousand five"),
        ("call 5550199 or 007", "call five five five zero one nine nine or zero zero seven"),
        ("1,000,000", "one million"),
        ("", ""),
        ("— … !", ""),
    ],
)  # fmt: skip
def test_a_text_is_compared_as_it_is_spoken(text: str, words: str) -> None:
    assert words_of(text) == words.split()


@pytest.mark.parametrize(
    ("pairs", "rate"),
    [
        ([("one two three four", "one two three four")], 0.0),
        ([("one two three four", "")], 1.0),
        ([("one two three four", "one too three")], 0.5),
        ([("one", "one two three")], 2.0),
        ([("one two", "one two"), ("three four five six", "seven")], 4 / 6),
        ([("The 3rd of 12.", "the third of twelve")], 0.0),
        ([("", "something")], None),
        ([], None),
    ],
)
def test_the_rate_counts_words_substituted_missing_and_added(pairs: list[tuple[str, str]], rate: float | None) -> None:
    assert word_error_rate(pairs) == pytest.approx(rate)


@given(st.lists(st.sampled_from("abc"), max_size=8), st.lists(st.sampled_from("abc"), max_size=8))
def test_the_distance_is_one(first: list[str], second: list[str]) -> None:
    """Symmetric, zero for equals alone, and no longer than the longer of both."""
    distance = edits(first, second)
    assert distance == edits(second, first)
    assert (distance == 0) == (first == second)
    assert abs(len(first) - len(second)) <= distance <= max(len(first), len(second))


@given(st.integers(0, 10**12))
def test_every_number_has_words(number: int) -> None:
    assert words_of(str(number))
    assert words_of(f"{number:,}")


@pytest.mark.parametrize(
    ("text", "digits"),
    [
        ("My number is two, nine, one, four.", "2914"),
        ("My number is 366-25851.", "36625851"),
        ("oh seven 04", "0704"),
        ("I am the owner", ""),
    ],
)
def test_digits_are_found_however_they_are_written(text: str, digits: str) -> None:
    assert digits_of(text) == digits


def test_agreement_is_of_words_in_order() -> None:
    assert word_agreement("It's <sigh> late.", "it’s late") == 1.0
    assert word_agreement("one two three four", "five six seven eight") == 0.0
