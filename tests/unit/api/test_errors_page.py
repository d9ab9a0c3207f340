from __future__ import annotations

from app import errors
from app.api.errors_page import PAGE, error_kinds, reference


def test_the_page_in_the_repository_is_what_the_errors_say() -> None:
    assert PAGE.read_text("utf-8") == reference(), "run `python -m app.api.errors_page` and commit the result"


def test_every_error_has_a_code_of_its_own_and_its_place_in_the_drawing() -> None:
    kinds = error_kinds()
    assert len({kind.code for kind in kinds}) == len(kinds)
    drawing = errors.__doc__ or ""
    assert [kind.__name__ for kind in kinds if f"* {kind.__name__} " not in drawing] == []
