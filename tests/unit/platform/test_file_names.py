"""File names that clients give, made safe to show."""

from __future__ import annotations

import pytest

from app.platform.file_names import MAX_NAME_CHARS, shown_name


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("a.wav", "a.wav"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\me\\Take 1.WAV", "Take 1.WAV"),
        ("/abs/olute/", "olute"),
        ("nul\x00l\r\n.wav", "null.wav"),
        ("gnp\u202evaw.wav", "gnpvaw.wav"),
        ("Ärger – 2.flac", "Ärger – 2.flac"),
        ("..", "recording"),
        ("", "recording"),
        (".wav", "wav"),
        ("\ud800.wav", "wav"),
    ],
)
def test_a_name_is_made_safe_to_show(sent: str, shown: str) -> None:
    assert shown_name(sent) == shown


def test_a_long_name_keeps_its_ending() -> None:
    assert shown_name("x" * 10_000 + ".flac") == "x" * (MAX_NAME_CHARS - 5) + ".flac"
    assert len(shown_name("x." * 5_000)) == MAX_NAME_CHARS
