"""What is wrong with a value, said without the words of the library that found it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from app.api.bodies import MAX_STRUCTURE_BYTES, SMALL_BYTES, parse_json
from app.api.clones import CloneRequest
from app.api.fleet import DrainRequest
from app.api.keys import NewKey
from app.api.openai.speech import SpeechRequest
from app.errors import CarillonError, ConfigurationError, InvalidRequest
from app.narration.submission import NewNarration
from app.platform.settings import load_settings
from app.speech.field_errors import reason
from app.speech.protocol import CLIENT_MESSAGES, parse
from app.speech.recipe import CloneConfig
from app.speech.token_layout import read_layout

LIBRARY_WORDS = ("Value error", "Assertion failed", "Input should", "Field required", "Extra inputs", "pydantic", "://")

SPEECH = {"model": "standin", "voice": "slt", "input": "Hi."}


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (SpeechRequest, {**SPEECH, "speed": 9}, "speed: it must be at most 4.0"),
        (SpeechRequest, {**SPEECH, "speed": "fast"}, "speed: it must be a number"),
        (SpeechRequest, {**SPEECH, "response_format": "midi"}, "response_format: it must be 'mp3', 'opus', 'aac'"),
        (SpeechRequest, {**SPEECH, "stream_format": "tape"}, "stream_format: it must be 'audio' or 'sse'"),
        (NewKey, {"name": "n", "pitch": 1}, "pitch: there is no such field"),
        (SpeechRequest, {**SPEECH, "input": 1}, "input: it must be a text, in quotes"),
        (SpeechRequest, {**SPEECH, "model": ""}, "model: it must have at least 1 characters"),
        (SpeechRequest, {**SPEECH, "model": "m" * 129}, "model: it has more than 128 characters, the most it may have"),
        (SpeechRequest, {"model": "standin", "voice": "slt"}, "input: it is missing"),
        (SpeechRequest, [], "body: it must be an object, with its fields in braces"),
        (CloneRequest, {"voice": "v", "overrides": 3}, "overrides: it must be an object, with its fields in braces"),
        (DrainRequest, {"deadline_s": -1}, "deadline_s: it must be at least 0.0"),
        (NewKey, {"name": "n", "scopes": "speak"}, "scopes: it must be a list"),
        (NewKey, {"name": "n", "scopes": []}, "scopes: it must have at least 1 entries"),
        (
            NewKey,
            {"name": "n", "scopes": ["sing"]},
            "scopes.0: it must be 'speak', 'clone', 'narrate', 'fleet', 'manage' or",
        ),
        (NewNarration, {"text": "Hi."}, "body: voice: name the narrator's voice"),
    ],
)
def test_a_body_that_is_wrong_is_reported_by_field_and_reason(kind: Any, value: object, expected: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_json(json.dumps(value).encode(), kind)
    assert refused.value.message.startswith(expected)
    assert_plain(refused.value)


@pytest.mark.parametrize("body", [b"{", b"no", b'{"voice": "\xff"}', b"[" * 300])
def test_what_is_no_json_is_reported_as_that(body: bytes) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_json(body, CloneRequest)
    assert refused.value.message.startswith("body: this is no JSON")
    assert_plain(refused.value)


def assert_plain(error: CarillonError) -> None:
    assert not [words for words in LIBRARY_WORDS if words in error.message]


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("CARILLON_CAPACITY", "0", "CARILLON_CAPACITY: it must be at least 1"),
        ("CARILLON_CAPACITY", "four", "CARILLON_CAPACITY: it must be a whole number"),
        ("CARILLON_DEVICE", "abacus", "CARILLON_DEVICE: it must be 'auto', 'cpu' or 'cuda'"),
        ("CARILLON_AUTH", "maybe", "CARILLON_AUTH: it must be true or false"),
        ("CARILLON_ENGINE__MAX_LORA", "1", "CARILLON_ENGINE__MAX_LORA: there is no such field"),
        ("CARILLON_SESSION__MAX_INPUT_CHARS", "30000", "CARILLON_SESSION: max_input_chars (30000) is more than"),
    ],
)
def test_a_setting_that_is_wrong_is_reported_by_its_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, expected: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError) as refused:
        load_settings()
    assert refused.value.message.startswith(expected)
    assert_plain(refused.value)


@pytest.mark.parametrize(
    "message",
    [
        '{"type": "start"}',
        '{"type": "yodel", "session": "a"}',
        '{"session": "a"}',
        "{",
        '{"type": "credit", "session": "a", "samples": 0}',
    ],
)
def test_a_message_that_is_wrong_is_reported_in_plain_words(message: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse(CLIENT_MESSAGES, message)
    assert_plain(refused.value)
    assert "yodel" not in refused.value.message


def test_a_recipe_that_is_wrong_is_reported_by_its_place() -> None:
    with pytest.raises(InvalidRequest, match=r"^overrides\.train\.epochs: it must be a whole number$"):
        CloneConfig().overridden({"train": {"epochs": "many"}})


def test_a_checkpoint_that_is_none_is_reported_by_file_and_field(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"speech": {"name": 1}}', "utf-8")
    with pytest.raises(ConfigurationError) as refused:
        read_layout(tmp_path, tmp_path)
    assert refused.value.message.startswith(f"{tmp_path / 'config.json'}: speech.")
    assert_plain(refused.value)


def test_an_unforeseen_fault_is_reported_without_its_name() -> None:
    assert reason({"type": "of_another_version"}) == "it is not of the kind that is due here"


def test_a_large_body_may_be_one_long_text() -> None:
    text = 'He said: "No \\ never." ' * 100_000
    body = json.dumps({"voice": "slt", "text": text}).encode()
    assert len(body) > SMALL_BYTES
    assert parse_json(body, NewNarration).text == text


@pytest.mark.parametrize(
    "body",
    [
        b"[" + b"{}," * MAX_STRUCTURE_BYTES + b"{}]",
        b'{"voice": "slt", "text": "' + b'","' * MAX_STRUCTURE_BYTES + b'"}',
        b'{"voice": "slt"' + b" " * MAX_STRUCTURE_BYTES + b"}",
        b'{"text": "' + b"\\\\" * SMALL_BYTES + b'", "cast": [' + b"[]," * MAX_STRUCTURE_BYTES + b"0]}",
    ],
)
def test_a_large_body_of_anything_else_is_not_parsed(body: bytes) -> None:
    with pytest.raises(InvalidRequest, match="besides its texts"):
        parse_json(body, NewNarration)
