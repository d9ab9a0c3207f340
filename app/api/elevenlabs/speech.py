"""`POST /v1/text-to-speech/{voice_id}` and its three variants.

* `voice_settings.speed` is honoured; what no model here can follow (`stability`, `seed`, `previous_text` …) is ignored
  and named in `X-Carillon-Ignored`.
* With timestamps, audio is sent as it is made, and the times of a sentence's characters once it is whole.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import ConfigDict, Field

from app.api.access import requires
from app.api.bodies import read_json
from app.api.delivery_response import DeliveryResponse
from app.api.dialects import MAX_BODY_BYTES_PER_CHAR, check_text, ignored_header
from app.api.elevenlabs.wire import (
    EDGE,
    ElevenLabsRoute,
    Reading,
    TheServices,
    VoiceSettings,
    alignment_s,
    api_key,
    encoding_of,
    error_body,
    model_meant,
    text_options,
)
from app.api.errors import status_of
from app.api.manner import Manner
from app.api.segment_timing import Words
from app.api.services import Services
from app.api.speaking import Delivery, Finished, Sound
from app.api.speech_response import AudioForm, SpeechResponse
from app.errors import CarillonError
from app.speech.choices import Scope
from app.speech.timing import TimedCharacter

router = APIRouter(
    route_class=ElevenLabsRoute, include_in_schema=False, dependencies=[Depends(requires(Scope.SPEAK, api_key))]
)

Form = Annotated[str | None, Query(alias="output_format", max_length=32)]


class TextToSpeech(Reading):
    """The body of all four."""

    model_config = ConfigDict(extra="allow")

    text: str
    model_id: str | None = Field(default=None, max_length=128)
    voice_settings: VoiceSettings | None = None

    @property
    def ignored(self) -> list[str]:
        """The fields that change nothing."""
        extra = [name for name, value in (self.model_extra or {}).items() if value not in (None, [], "")]
        return sorted(extra) + (self.voice_settings.ignored if self.voice_settings else [])

    @property
    def speed(self) -> float:
        return (self.voice_settings and self.voice_settings.speed) or 1.0


async def _wanted(
    request: Request, services: Services, voice_id: str, form: str | None, *, timed: bool = False
) -> tuple[TextToSpeech, Manner]:
    """What is to be spoken, and how. Raises InvalidRequest, TextTooLong, UnknownVoice, UnknownModel."""
    encoding = encoding_of(form)
    limit = services.settings.session.max_input_chars
    wanted = await read_json(request, TextToSpeech, max_bytes=8192 + 3 * limit * MAX_BODY_BYTES_PER_CHAR)
    check_text(wanted.text, at_most=limit, param="text")
    voice = await services.resolver.find(voice_id, model_meant(wanted.model_id))
    options = text_options(services, voice, wanted)
    return wanted, Manner(EDGE, voice, encoding, options, speed=wanted.speed, timed=timed)


@router.post("/v1/text-to-speech/{voice_id}")
@router.post("/v1/text-to-speech/{voice_id}/stream")
async def speak(voice_id: str, request: Request, services: TheServices, form: Form = None) -> Response:
    """Speak a text; the audio is sent as it is made."""
    wanted, manner = await _wanted(request, services, voice_id, form)
    return SpeechResponse(services, manner, wanted.text, AudioForm(), headers=ignored_header(wanted.ignored))


@router.post("/v1/text-to-speech/{voice_id}/stream/with-timestamps")
async def stream_with_timestamps(voice_id: str, request: Request, services: TheServices, form: Form = None) -> Response:
    """Speak a text; each line of the answer is a JSON object with audio, or with the times of a sentence."""
    wanted, manner = await _wanted(request, services, voice_id, form, timed=True)
    return DeliveryResponse(services, manner, wanted.text, Lines(), headers=ignored_header(wanted.ignored))


@router.post("/v1/text-to-speech/{voice_id}/with-timestamps")
async def with_timestamps(voice_id: str, request: Request, services: TheServices, form: Form = None) -> Response:
    """Speak a text; the answer is one JSON object with all of the audio and the times of its characters."""
    wanted, manner = await _wanted(request, services, voice_id, form, timed=True)
    return DeliveryResponse(services, manner, wanted.text, Whole(), headers=ignored_header(wanted.ignored))


class Lines:
    """A JSON object a line, as `stream/with-timestamps` answers."""

    content_type = "application/json"

    def write(self, delivery: Delivery) -> bytes:
        match delivery:
            case Sound():
                return _line(
                    {"audio_base64": _text_of(delivery.audio), "alignment": None, "normalized_alignment": None}
                )
            case Words():
                return _line(
                    {
                        "audio_base64": "",
                        "alignment": alignment_s(delivery.written_characters()),
                        "normalized_alignment": alignment_s(delivery.spoken_characters()),
                        "approximate": delivery.approximate,
                    }
                )
            case _:
                return b""

    def failure(self, error: CarillonError) -> bytes | None:
        return _line(error_body(status_of(error), error.message, code=error.code, param=error.param))


class Whole:
    """One JSON object at the end, as `with-timestamps` answers."""

    content_type = "application/json"

    def __init__(self) -> None:
        self._audio: list[bytes] = []
        self._written: list[TimedCharacter] = []
        self._spoken: list[TimedCharacter] = []
        self._approximate = False

    def write(self, delivery: Delivery) -> bytes:
        match delivery:
            case Sound():
                self._audio.append(delivery.audio)
            case Words():
                self._written += delivery.written_characters()
                self._spoken += delivery.spoken_characters()
                self._approximate |= delivery.approximate
            case Finished():
                return b"".join(self._pieces())
            case _:
                pass
        return b""

    def _pieces(self) -> Iterator[bytes]:
        rest = {
            "alignment": alignment_s(self._written),
            "normalized_alignment": alignment_s(self._spoken),
            "approximate": self._approximate,
        }
        yield b'{"audio_base64":"'
        yield base64.b64encode(b"".join(self._audio))
        yield b'",'
        yield json.dumps(rest, separators=(",", ":")).encode()[1:]

    def failure(self, error: CarillonError) -> bytes | None:
        return None


def _text_of(audio: bytes) -> str:
    return base64.b64encode(audio).decode("ascii")


def _line(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode() + b"\n"
