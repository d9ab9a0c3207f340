"""Selects the recogniser for a language.

In this order: an OpenAI-compatible endpoint, a local whisper where the operator has set one, and for English the
recogniser that comes with Carillon.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from app.errors import CarillonError, ConfigurationError, DeadlineExceeded
from app.hearing import moonshine
from app.hearing.ear import Heard, Transcriber, is_english
from app.hearing.moonshine import Moonshine
from app.hearing.whisper import Whisper
from app.platform.settings import CloningSettings

_ATTEMPTS = 3
_TIMEOUT_S = 60.0


class EndpointTranscriber:
    """POST `{base_url}/audio/transcriptions`, as OpenAI, speaches, vLLM and whisper.cpp's server answer it."""

    coarse = False

    def __init__(self, client: httpx.Client, *, model: str) -> None:
        """`client` has the base URL (with its `/v1`), the key's header and a timeout; it stays the caller's."""
        self._client = client
        self._model = model
        self.name = f"{model} at the configured endpoint"

    def transcribe(self, path: Path, *, language: str | None = None) -> Heard:
        """Asks up to three times where the endpoint does not answer or is overloaded.

        Raises ConfigurationError for a refused request, DeadlineExceeded where no answer came.
        """
        fields = {"model": self._model, "response_format": "json", **({"language": language} if language else {})}
        failure = ""
        for _ in range(_ATTEMPTS):
            try:
                with path.open("rb") as file:
                    answer = self._client.post("audio/transcriptions", data=fields, files={"file": (path.name, file)})
            except httpx.TransportError as error:
                failure = type(error).__name__
                continue
            if answer.is_success:
                return Heard(_text_of(answer))
            if answer.status_code < 500 and answer.status_code != httpx.codes.TOO_MANY_REQUESTS:
                raise ConfigurationError(
                    f"the transcription endpoint refused a clip with status {answer.status_code}; "
                    "check its URL, its key and the model's name"
                )
            failure = f"status {answer.status_code}"
        raise DeadlineExceeded(f"the transcription endpoint failed {_ATTEMPTS} times ({failure}); try again later")


NO_EAR = (
    "no recogniser for {language} is configured: "
    "set CARILLON_CLONING__TRANSCRIBER_URL or CARILLON_CLONING__WHISPER_MODEL"
)


@contextmanager
def open_transcriber(settings: CloningSettings, language: str) -> Iterator[Transcriber | None]:
    """The recogniser for a language while the context lasts; None where there is none, as NO_EAR says.

    Raises ConfigurationError for one that is configured and does not load.
    """
    if settings.transcriber_url is None:
        yield _local(settings, language)
        return
    key = settings.transcriber_key.get_secret_value()
    with httpx.Client(
        base_url=settings.transcriber_url.removesuffix("/audio/transcriptions"),
        headers={"Authorization": f"Bearer {key}"} if key else {},
        timeout=_TIMEOUT_S,
    ) as client:
        yield EndpointTranscriber(client, model=settings.transcriber_model)


def _local(settings: CloningSettings, language: str) -> Transcriber | None:
    if settings.whisper_model is not None:
        return Whisper.loaded(settings.whisper_model)
    return Moonshine() if is_english(language) and moonshine.installed() else None


def _text_of(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["text"]).strip()
    except (ValueError, KeyError, TypeError):
        raise CarillonError("the transcription endpoint answered without a text; it must speak OpenAI's JSON") from None
