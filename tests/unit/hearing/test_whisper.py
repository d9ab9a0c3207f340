"""A local whisper, as far as it can be tried without its model."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from app.errors import ConfigurationError
from app.hearing.whisper import Whisper


@dataclass
class Segment:
    text: str
    avg_logprob: float


@dataclass
class Model:
    """Says these segments, and which language it was asked for."""

    segments: list[Segment]
    asked: str | None = ""

    def transcribe(self, audio: str, *, language: str | None) -> tuple[Iterable[Segment], Any]:
        self.asked = language
        return iter(self.segments), None


def test_segments_are_joined_and_their_confidence_is_told() -> None:
    model = Model([Segment(" Guten Morgen.", -0.1), Segment(" Bis bald.", -0.3)])
    heard = Whisper(model, name="whisper tiny").transcribe(Path("a.flac"), language="de-AT")
    assert (heard.text, heard.confidence, model.asked) == ("Guten Morgen. Bis bald.", 0.819, "de")
    assert Whisper(Model([]), name="whisper tiny").transcribe(Path("a.flac")).confidence is None


@pytest.mark.skipif(importlib.util.find_spec("faster_whisper") is not None, reason="the extra is installed")
def test_without_the_extra_its_setting_says_what_is_missing() -> None:
    with pytest.raises(ConfigurationError, match=r"carillon\[whisper\]"):
        Whisper.loaded("tiny")
