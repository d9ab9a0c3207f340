"""Which words were played, reckoned from samples."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from app.speech.spoken_text import played_text


@dataclass
class Spoken:
    text: str
    start_sample: int
    end_sample: int
    whole: bool = True


@pytest.mark.parametrize(
    ("played_samples", "expected"),
    [
        (0, ""),
        (1000, "one two three."),
        (1500, "one two three. four five"),
        (9000, "one two three. four five six seven."),
    ],
)
def test_played_text_counts_whole_words_of_what_was_played(played_samples: int, expected: str) -> None:
    spoken = [Spoken("one two three.", 0, 1000), Spoken("four five six seven.", 1000, 2000)]
    assert played_text(spoken, played_samples) == expected


def test_a_chunk_still_being_spoken_is_taken_to_go_on_at_the_pace_of_those_before_it() -> None:
    spoken = [Spoken("0123456789", 0, 1000), Spoken("one two four five six", 1000, 1100, whole=False)]
    assert played_text(spoken, 1100) == "0123456789"
    assert played_text(spoken, 2050) == "0123456789 one two"
