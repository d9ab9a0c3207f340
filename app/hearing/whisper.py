"""A local faster-whisper, for the languages that the bundled recogniser does not know (the extra `whisper`).

Its model is a directory, or a name for which faster-whisper asks a hub: only where the operator has set one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from app.errors import ConfigurationError
from app.hearing.ear import Heard


class Segment(Protocol):
    """What faster-whisper gives of a stretch of speech."""

    text: str
    avg_logprob: float


class Model(Protocol):
    """`faster_whisper.WhisperModel`, as far as it is used."""

    def transcribe(self, audio: str, *, language: str | None) -> tuple[Iterable[Segment], Any]: ...


class Whisper:
    """A loaded model; its confidence is the mean probability of its tokens."""

    coarse = False

    def __init__(self, model: Model, *, name: str) -> None:
        self._model = model
        self.name = name

    @classmethod
    def loaded(cls, model: str) -> Whisper:
        """Raises ConfigurationError where the extra is missing or the model cannot be had."""
        try:
            from faster_whisper import WhisperModel  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise ConfigurationError(
                "CARILLON_CLONING__WHISPER_MODEL needs faster-whisper; `pip install 'carillon[whisper]'` adds it"
            ) from None
        try:
            return cls(WhisperModel(model, device="auto"), name=f"whisper {Path(model).name}")
        except (OSError, ValueError, RuntimeError) as error:
            raise ConfigurationError(f"CARILLON_CLONING__WHISPER_MODEL: {model} does not load: {error}") from None

    def transcribe(self, path: Path, *, language: str | None = None) -> Heard:
        """Transcribes a trusted file."""
        code = language.partition("-")[0].lower() if language else None
        segments = list(self._model.transcribe(str(path), language=code)[0])
        text = " ".join(segment.text.strip() for segment in segments)
        mean = sum(segment.avg_logprob for segment in segments) / len(segments) if segments else None
        return Heard(text, None if mean is None else round(math.exp(mean), 3))
