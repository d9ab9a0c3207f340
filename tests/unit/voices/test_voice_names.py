"""What a voice may be called."""

from __future__ import annotations

import pytest

from app.errors import InvalidRequest
from app.voices.voice_names import checked_name, folded


@pytest.mark.parametrize("name", ["wren", "Zoë", "Анна", "Σοφία", "さくら A", "narrator 2", "阿明-B"])
def test_names_of_any_language_are_kept_as_they_are(name: str) -> None:
    assert checked_name(f" {name} ") == name


@pytest.mark.parametrize("name", ["wr\u0435n", "\u0410nna", "r\u03bfok", "\uff57r\u0435n"])
def test_a_name_with_letters_of_two_alphabets_that_look_alike_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest, match="one alphabet"):
        checked_name(name)


@pytest.mark.parametrize("name", ["", " ", "a\u202eb", "a\nb", "x" * 65])
def test_an_unprintable_or_endless_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest, match="printable"):
        checked_name(name)


def test_letters_of_another_width_or_case_make_no_other_name() -> None:
    assert folded("\uff37REN") == folded("wren")
