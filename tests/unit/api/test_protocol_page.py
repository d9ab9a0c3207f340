from __future__ import annotations

from app.api.native.protocol_page import PAGE, reference
from app.speech.protocol import CLIENT_MESSAGES, SERVER_MESSAGES


def test_the_page_in_the_repository_is_what_the_messages_say() -> None:
    assert PAGE.read_text("utf-8") == reference(), "run `python -m app.api.native.protocol_page` and commit the result"


def test_the_page_has_a_section_for_every_message() -> None:
    schemas = (CLIENT_MESSAGES.json_schema(), SERVER_MESSAGES.json_schema())
    names = {name for schema in schemas for name in schema["discriminator"]["mapping"]}
    assert names
    assert all(f"### `{name}`" in reference() for name in names)
