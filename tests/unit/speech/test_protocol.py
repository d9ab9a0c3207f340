"""Messages between processes of two versions, as they meet while a fleet is upgraded."""

from __future__ import annotations

import json

import pytest

from app.errors import InvalidRequest
from app.speech.protocol import (
    CLIENT_MESSAGES,
    WORKER_COMMANDS,
    WORKER_MESSAGES,
    Assign,
    Segment,
    Text,
    parse,
    parse_peer,
)
from tests.support.registries import BUILT_IN

ASSIGN = Assign(session="s", epoch=1, voice=BUILT_IN, pace="realtime")
SEGMENT = Segment(session="s", generation=0, text="Hello.", start_sample=0, end_sample=1)


def test_what_a_newer_front_door_says_besides_is_no_reason_for_a_worker_to_refuse_a_session() -> None:
    said = json.loads(ASSIGN.model_dump_json())
    said["mood"] = "calm"
    said["voice"]["owner"] = "ada"
    said["text"]["chapters"] = True
    assert parse_peer(WORKER_COMMANDS, json.dumps(said)) == ASSIGN


def test_what_a_newer_worker_says_besides_is_no_reason_to_leave_it() -> None:
    said = {**json.loads(SEGMENT.model_dump_json()), "warmth": 0.5}
    assert parse_peer(WORKER_MESSAGES, json.dumps(said)) == SEGMENT


def test_a_client_is_told_of_a_field_that_is_not_known() -> None:
    said = {**Text(session="s", text="Hello.").model_dump(mode="json"), "warmth": 0.5}
    with pytest.raises(InvalidRequest, match="warmth"):
        parse(CLIENT_MESSAGES, json.dumps(said))
