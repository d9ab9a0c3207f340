"""OpenAI's speech API, as its SDKs and compatible clients use it: `/v1/audio/speech`, `/v1/models`, listings.

Rules where OpenAI's and ours differ:

* `model` is a model served here; OpenAI's own names (`tts-1`, …) mean whichever model has the voice.
* `voice` is a voice of that name; OpenAI's thirteen names mean a built-in voice that sounds alike, or the one that
  `CARILLON_OPENAI__VOICES` names. Any other that does not exist is refused with the nearest names.
* A field that is not known, or that no model here can follow (`instructions`), is ignored and named in
  `X-Carillon-Ignored`; with `CARILLON_OPENAI__STRICT` it is refused. `null` means the default.
* A text with nothing to say is a tenth of a second of silence: an agent that speaks sentence by sentence goes on.
* What is known before the first byte of audio is in the headers `Server-Timing` (queue, route, first_audio; ms),
  `X-Carillon-Model`, `-Voice`, `-Worker` and `-Sample-Rate`; the whole ledger is in the last event of
  `stream_format=sse`, and in the metrics.
* `usage.input_tokens` counts characters: the words' tokens are the model's affair, and OpenAI bills characters too.
* An error after the first byte breaks the connection (audio), so that a part is never taken for the whole, or is an
  event of its own (sse).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from app.api.access import may_list, requires
from app.api.bodies import json_body, read_json
from app.api.dialects import MAX_BODY_BYTES_PER_CHAR, check_text, ignored_header
from app.api.manner import Manner
from app.api.services import TheServices
from app.api.speech_response import AudioForm, EventForm, SpeechResponse
from app.errors import InvalidRequest
from app.speech.choices import AudioFormat, Scope
from app.speech.text.options import TextFields
from app.speech.voices import ModelCard

EDGE = "openai"

router = APIRouter(tags=["openai"])


class VoiceReference(BaseModel):
    model_config = ConfigDict(extra="forbid")

    id: str = Field(min_length=1, max_length=128)


def _by_id(voice: Any) -> Any:
    return {"id": voice} if isinstance(voice, str) else voice


_NAME = {"type": "string", "minLength": 1, "maxLength": 128}
VoiceField = Annotated[
    VoiceReference,
    BeforeValidator(_by_id),
    WithJsonSchema({"anyOf": [_NAME, {"type": "object", "properties": {"id": _NAME}, "required": ["id"]}]}),
]
"""A name, or `{"id": name}`."""


def _or_null(schema: dict[str, Any]) -> None:
    """Any field that may be left out may be null as well."""
    for name, field in schema["properties"].items():
        if name not in schema["required"] and "anyOf" not in field:
            about = {key: field.pop(key) for key in ("title", "description", "default") if key in field}
            schema["properties"][name] = {"anyOf": [field, {"type": "null"}], **about}


class SpeechRequest(TextFields):
    """The body of `POST /v1/audio/speech`."""

    model_config = ConfigDict(extra="allow", json_schema_extra=_or_null)

    model: str = Field(default="tts-1", min_length=1, max_length=128)
    input: str = Field(
        description="Text, Markdown, HTML or SSML; longer ones go into WS /v1/sessions.",
        json_schema_extra={"minLength": 1},
    )
    voice: VoiceField
    instructions: str | None = None
    response_format: AudioFormat = AudioFormat.MP3
    speed: float = Field(default=1.0, ge=0.25, le=4.0)
    stream_format: Literal["audio", "sse"] = "audio"

    @model_validator(mode="before")
    @classmethod
    def _null_is_the_default(cls, body: Any) -> Any:
        return {name: value for name, value in body.items() if value is not None} if isinstance(body, dict) else body

    @property
    def ignored(self) -> list[str]:
        """The fields that change nothing: unknown ones, and instructions."""
        asked = [] if not (self.instructions and self.instructions.strip()) else ["instructions"]
        return asked + sorted(self.model_extra or {})


@router.post(
    "/v1/audio/speech",
    dependencies=[Depends(requires(Scope.SPEAK))],
    openapi_extra=json_body(SpeechRequest),
)
async def speak(request: Request, services: TheServices) -> Response:
    """Speak a text; the audio is sent as it is made."""
    limit = services.settings.session.max_input_chars
    wanted = await read_json(request, SpeechRequest, max_bytes=4096 + limit * MAX_BODY_BYTES_PER_CHAR, strict=False)
    if wanted.ignored and services.settings.openai.strict:
        raise InvalidRequest(
            f"{wanted.ignored[0][:64]!r} is not known or cannot be followed by the models served here; leave it out",
            param=wanted.ignored[0][:64],
        )
    check_text(wanted.input, at_most=limit, param="input")
    voice = await services.resolver.find(wanted.voice.id, model=wanted.model)
    options = wanted.text_options(language=voice.language, operator=services.settings.session.text_options)
    manner = Manner(edge=EDGE, voice=voice, encoding=wanted.response_format, options=options, speed=wanted.speed)
    form = EventForm() if wanted.stream_format == "sse" else AudioForm()
    return SpeechResponse(services, manner, wanted.input, form, headers=ignored_header(wanted.ignored))


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


@router.get("/v1/models", dependencies=[Depends(may_list)])
async def list_models(services: TheServices) -> dict[str, Any]:
    """The models that living workers hold; `stand_in` marks a small one that is no real voice."""
    return {"object": "list", "data": [_model(card) for card in services.models()]}


@router.get("/v1/audio/models", dependencies=[Depends(may_list)])
async def list_speech_models(services: TheServices) -> dict[str, Any]:
    """The same models, where Open WebUI looks for them."""
    return {"models": [_model(card) for card in services.models()]}


@router.get("/v1/models/{name}", dependencies=[Depends(may_list)])
async def one_model(name: str, services: TheServices) -> dict[str, Any]:
    """A model by name; one of OpenAI's names is answered with the first that is served, under the name asked for."""
    return {**_model(services.resolver.card(name)), "id": name}


@router.get("/v1/audio/voices", dependencies=[Depends(may_list)])
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
