from __future__ import annotations

import pytest

from app.errors import InvalidRequest
from app.voices.transcripts import assign, parse_manifest, transcript


def test_a_transcript_is_one_line_of_text() -> None:
    assert transcript("  Hello,\r\n\tyou\x00there. ") == "Hello, you there."
    assert transcript("می\u200cخواهم") == "می\u200cخواهم"
    assert transcript(" \n") is None
    with pytest.raises(InvalidRequest, match="200001 characters"):
        transcript("x" * 200_001)


@pytest.mark.parametrize(
    "text",
    [
        'file,text\na.wav,"Hello, you."\nb.wav,Bye.\n',
        '\ufefftext,speaker,file\r\n"Hello, you.",7,dir/a.wav\r\nBye.,7,b.wav\r\n',
        "a.wav|Hello, you.\nb.wav|BYE|Bye.\n",
        "file|text\na.wav|Hello, you.\n\nb.wav|Bye.\n",
        '{"file": "a.wav", "text": "Hello, you."}\n\n{"audio": "x/b.wav", "transcript": "Bye.", "speaker": 7}\n',
    ],
)
def test_a_manifest_is_read_in_any_of_its_forms(text: str) -> None:
    assert parse_manifest(text) == [("a.wav", "Hello, you."), ("b.wav", "Bye.")]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a.wav,Hello.\n", 1),
        ("file,text\na.wav,Hello, you.\n", 2),
        ("file,text\na.wav\n", 2),
        ('file,text\na.wav,"open\n', 2),
        ("a.wav|Hello.\nb.wav\n", 2),
        ('{"file": "a.wav", "text": "Hello."}\n{"file": 7}\n', 2),
        ('{"file": "a.wav", "text": "Hello."}\n[]\n', 2),
        ('{"file": "a.wav", "text": null}\n', 1),
        ('{"a":' * 100_000, 1),
    ],
)
def test_a_manifest_that_cannot_be_read_names_the_line(text: str, line: int) -> None:
    with pytest.raises(InvalidRequest, match=f"line {line}:"):
        parse_manifest(text)


def test_an_empty_manifest_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="empty"):
        parse_manifest("\n \n")


def test_given_transcripts_come_before_the_manifest_and_that_before_sidecars() -> None:
    words, strays = assign(
        ["a.wav", "b.wav", "c.wav"],
        given=["one", "", ""],
        manifest=[("a", "two"), ("b.flac", "two")],
        sidecars=[("a.txt", "three"), ("b.txt", "three"), ("c.txt", "three")],
    )
    assert words == ["one", "two", "three"]
    assert strays == []


def test_words_without_their_file_are_told() -> None:
    words, strays = assign(
        ["1.wav", "1.flac", "2.wav", "2.wav"],
        given=[],
        manifest=[("1.wav", "one"), ("2.wav", "two"), ("3.wav", "three")],
        sidecars=[("1.txt", "one")],
    )
    assert words == ["one", None, None, None]
    assert [name for name, _ in strays] == ["2.wav", "3.wav", "1.txt"]
    assert "2 files have that name" in strays[0][1]
    assert "no file of that name" in strays[1][1]


def test_given_transcripts_must_be_as_many_as_the_files() -> None:
    with pytest.raises(InvalidRequest, match="1 for 2 files"):
        assign(["a.wav", "b.wav"], given=["one"], manifest=[], sidecars=[])
