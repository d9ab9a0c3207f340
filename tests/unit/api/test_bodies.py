"""JSON bodies on the page of the API."""

from __future__ import annotations

from app.api.bodies import either_body, json_body
from app.api.forms import form_body
from app.api.uploads import NewUploads


def test_a_page_of_the_api_names_no_part_that_is_not_on_it() -> None:
    assert "$ref" not in str(json_body(NewUploads))


def test_a_body_may_be_of_several_kinds() -> None:
    content = either_body(json_body(NewUploads), form_body(recording="file"))["requestBody"]["content"]
    assert list(content) == ["application/json", "multipart/form-data"]
