"""OpenAI's speech API, as its SDKs send it: `POST /v1/audio/speech`, `GET /v1/models`, and `GET /v1/audio/voices`.

Rules where OpenAI's and ours differ:

* `model` is a model served here. `tts-1`, `tts-1-hd` and `gpt-4o-mini-tts`, which clients send by default, mean
  whichever model has the voice.
* `voice` is never replaced: one that does not exist is refused with the nearest names, OpenAI's own names included.
* `instructions` cannot be followed and is refused; an unknown parameter is refused too.
* What is known before the first byte of audio is told in the headers `Server-Timing` (queue, route, first_audio; ms),
  `X-Carillon-Model`, `-Voice`, `-Worker` and `-Sample-Rate`; the whole ledger is in the last event of
  `stream_format=sse`, and in the metrics.
* `usage.input_tokens` counts characters: the words' tokens are the model's affair, and OpenAI bills characters too.
* An error after the first byte breaks the connection (audio), so that a part is never taken for the whole, or is an
  event of its own (sse).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from app.api.access import requires
from app.api.bodies import json_body, read_json
from app.api.services import Services, TheServices
from app.api.speech_response import AudioForm, EventForm, SpeechResponse
from app.errors import InvalidRequest, TextTooLong, UnknownModel
from app.speech.choices import AudioFormat, Scope
from app.speech.text.options import TextFields
from app.speech.voices import ModelCard

EDGE = "openai"

ANY_MODEL = frozenset({"tts-1", "tts-1-hd", "gpt-4o-mini-tts"})
"""OpenAI's own model names: a client that sends one has not chosen among ours."""

MAX_BODY_BYTES_PER_CHAR = 12
"""A character beyond the BMP, escaped in JSON, takes twelve bytes."""

router = APIRouter(tags=["openai"])


class VoiceReference(BaseModel):
    model_config = ConfigDict(extra="forbid")

    id: str = Field(min_length=1, max_length=128)


def _by_id(voice: Any) -> Any:
    return {"id": voice} if isinstance(voice, str) else voice


_NAME = {"type": "string"}
VoiceField = Annotated[
    VoiceReference,
    BeforeValidator(_by_id),
    WithJsonSchema({"anyOf": [_NAME, {"type": "object", "properties": {"id": _NAME}, "required": ["id"]}]}),
]
"""A name, or `{"id": name}`."""


class SpeechRequest(TextFields):
    """The body of `POST /v1/audio/speech`."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(min_length=1, max_length=128)
    input: str
    voice: VoiceField
    instructions: str | None = None
    response_format: AudioFormat = AudioFormat.MP3
    speed: float = Field(default=1.0, ge=0.25, le=4.0)
    stream_format: Literal["audio", "sse"] = "audio"


@router.post(
    "/v1/audio/speech",
    dependencies=[Depends(requires(Scope.SPEAK))],
    openapi_extra=json_body(SpeechRequest),
)
async def speak(request: Request, services: TheServices) -> Response:
    """Speak a text; the audio is sent as it is made."""
    limit = services.settings.session.max_input_chars
    wanted = await read_json(request, SpeechRequest, max_bytes=4096 + limit * MAX_BODY_BYTES_PER_CHAR)
    if wanted.instructions and wanted.instructions.strip():
        raise InvalidRequest(
            "instructions cannot be followed by the models served here; leave them out", param="instructions"
        )
    if not wanted.input.strip():
        raise InvalidRequest("input is empty; there is nothing to speak", param="input")
    if len(wanted.input) > limit:
        raise TextTooLong(
            f"input has {len(wanted.input)} characters; at most {limit}. Split it, or use WS /v1/sessions, "
            "which takes any amount of text",
            param="input",
        )
    voice = await services.resolver.find(wanted.voice.id, model=_model_name(wanted.model, services))
    return SpeechResponse(
        services,
        voice,
        wanted.input,
        edge=EDGE,
        format=wanted.response_format,
        speed=wanted.speed,
        options=wanted.text_options(language=voice.language, operator=services.settings.session.text_options),
        form=EventForm() if wanted.stream_format == "sse" else AudioForm(),
    )


def _model_name(name: str, services: Services) -> str | None:
    served = {card.name for card in services.session_router.models}
    return None if name in ANY_MODEL and name not in served else name


def _model(card: ModelCard) -> dict[str, Any]:
    return {
        "id": card.name,
        "object": "model",
        "created": 0,
        "owned_by": "carillon",
        "stand_in": card.stand_in,
        "languages": list(card.languages),
        "sample_rate_hz": card.sample_rate_hz,
    }


@router.get("/v1/models", dependencies=[Depends(requires(Scope.SPEAK))])
async def list_models(services: TheServices) -> dict[str, Any]:
    """The models that living workers hold; `stand_in` marks a small one that is no real voice."""
    return {"object": "list", "data": [_model(card) for card in services.session_router.models]}


@router.get("/v1/models/{name}", dependencies=[Depends(requires(Scope.SPEAK))])
async def one_model(name: str, services: TheServices) -> dict[str, Any]:
    for card in services.session_router.models:
        if card.name == name:
            return _model(card)
    served = ", ".join(sorted(card.name for card in services.session_router.models)) or "none"
    raise UnknownModel(f"model {name[:64]!r} is not served here; served are: {served}", param="model")


@router.get("/v1/audio/voices", dependencies=[Depends(requires(Scope.SPEAK))])
async def list_voices(services: TheServices) -> dict[str, Any]:
    """The voices of the models being served: built-in ones and clones."""
    return {
        "voices": [
            {
                "id": voice.id,
                "name": voice.name,
                "model": voice.model,
                "language": voice.language,
                "kind": "clone" if voice.adapter else "built_in",
            }
            for voice in await services.resolver.all()
        ]
    }
