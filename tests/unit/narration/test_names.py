"""The names of a text, by their capitals."""

from __future__ import annotations

import pytest

from app.narration.names import READ_CHARS, names_in


def test_the_most_frequent_names_come_first_with_how_often_they_come() -> None:
    texts = ["Nguyen met Siobhán by the lake. Nguyen's dog barked.", "Then Siobhán and Nguyen went home."]
    assert names_in(texts, most=9) == [("Nguyen", 3), ("Siobhán", 2)]
    assert names_in(texts, most=1) == [("Nguyen", 3)]


@pytest.mark.parametrize(
    "text",
    [
        "Never again. Never, he said.",  # begins sentences alone
        "The Bell rang, and the Bell stopped, and a bell is a bell.",  # a word like others, too
        "I came on Monday, and I'll go on Monday.",
        "Only Odysseus came.",  # once
        "",
    ],
)
def test_what_is_no_name_is_left_out(text: str) -> None:
    assert names_in([text], most=9) == []


def test_abbreviations_are_names() -> None:
    assert names_in(["They called NATO. Then they called NATO again."], most=9) == [("NATO", 2)]


def test_a_long_book_is_not_read_to_its_end() -> None:
    assert names_in(["a" * READ_CHARS, "b", "He saw Nguyen, and Nguyen saw him."], most=9) == []
