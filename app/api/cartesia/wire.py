"""How Cartesia's clients send a key, name models, voices and formats, and read errors and words' times."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Annotated, Any, Literal

from fastapi import Depends
from pydantic import BaseModel, ConfigDict, Field, field_validator
from starlette.requests import HTTPConnection

from app.api.access import bearer_token
from app.api.dialects import DialectRoute, SharedPathRoute
from app.api.manner import Manner
from app.api.segment_timing import Words
from app.api.services import Services, services_by
from app.api.speaking import Sound
from app.errors import InvalidRequest
from app.platform.codecs import Encoding
from app.speech.text.options import TextFields

EDGE = "cartesia"

KEY_HEADER, KEY_QUERIES = "x-api-key", ("api_key", "access_token")

SPEEDS = {"slowest": 0.6, "slow": 0.8, "normal": 1.0, "fast": 1.2, "fastest": 1.5}
"""What their words mean here: theirs are not published as figures."""

FORMATS = {"pcm_s16le": "pcm", "pcm_f32le": "f32", "pcm_mulaw": "ulaw", "pcm_alaw": "alaw"}


def api_key(connection: HTTPConnection) -> str | None:
    """The key of a request: a header, a bearer token, or, as browsers open sockets, a query parameter."""
    queries = (connection.query_params.get(name) for name in KEY_QUERIES)
    return connection.headers.get(KEY_HEADER) or bearer_token(connection) or next(filter(None, queries), None)


TheServices = Annotated[Services, Depends(services_by(api_key))]
"""The front door's parts as the holder of that key sees them."""


def error_body(status: int, message: str, *, code: str, param: str | None = None) -> dict[str, Any]:
    """An error as their SDK shows it."""
    title = code.replace("_", " ").capitalize()
    return {"error_code": code, "title": title, "message": message, "status_code": status, "param": param}


class CartesiaRoute(DialectRoute):
    body_of = staticmethod(error_body)


class CartesiaSharedRoute(SharedPathRoute):
    """Its path is the console's too; Cartesia's clients always name the version they speak."""

    body_of = staticmethod(error_body)
    header = "cartesia-version"


class OutputFormat(BaseModel):
    model_config = ConfigDict(extra="ignore")

    container: Literal["raw", "wav", "mp3"] = "raw"
    encoding: str | None = Field(default=None, max_length=32)
    sample_rate: int = Field(default=44_100, ge=8_000, le=48_000)
    bit_rate: int | None = Field(default=None, ge=32_000, le=192_000)

    def wanted(self) -> Encoding:
        """Raises InvalidRequest."""
        encoding = self.encoding or ("pcm_s16le" if self.container == "wav" else "pcm_f32le")
        if self.container == "mp3":
            return Encoding("mp3", self.sample_rate, self.bit_rate or 128_000)
        if encoding not in FORMATS or (self.container == "wav" and encoding != "pcm_s16le"):
            choices = "pcm_s16le" if self.container == "wav" else ", ".join(FORMATS)
            raise InvalidRequest(
                f"encoding {encoding[:32]!r} is not made in a container {self.container!r}; choose one of {choices}",
                param="output_format.encoding",
            )
        return Encoding("wav" if self.container == "wav" else FORMATS[encoding], self.sample_rate)


class GenerationConfig(BaseModel):
    """Of these only the speed can be followed."""

    model_config = ConfigDict(extra="allow")

    speed: float | None = Field(default=None, ge=0.25, le=4.0)


class VoiceSpecifier(BaseModel):
    model_config = ConfigDict(extra="ignore")

    mode: str = "id"
    id: str | None = Field(default=None, max_length=128)


class Generation(TextFields):
    """What one text is asked for with: the body over HTTP, and the first message of a context."""

    model_config = ConfigDict(extra="allow")

    transcript: str = ""
    model_id: str | None = Field(default=None, max_length=128)
    voice: VoiceSpecifier | None = None
    output_format: OutputFormat = OutputFormat()
    language: str | None = Field(default=None, max_length=16)
    locale: str | None = Field(default=None, max_length=16)
    normalization: str | None = Field(default=None, max_length=16)
    generation_config: GenerationConfig | None = None
    speed: str | float | None = None
    context_id: str | None = Field(default=None, max_length=256)
    add_timestamps: bool | None = None
    use_normalized_timestamps: bool | None = None

    @field_validator("voice", mode="before")
    @classmethod
    def _by_id(cls, voice: Any) -> Any:
        return {"id": voice} if isinstance(voice, str) else voice

    @field_validator("output_format", mode="before")
    @classmethod
    def _null_is_the_default(cls, value: Any) -> Any:
        return {} if value is None else value

    @property
    def ignored(self) -> list[str]:
        """The fields that change nothing."""
        fields = sorted(name for name, value in (self.model_extra or {}).items() if value not in (None, False, ""))
        settings = (self.generation_config.model_extra or {}) if self.generation_config else {}
        return fields + [f"generation_config.{name}" for name, value in settings.items() if value is not None]

    def tempo(self) -> float:
        """Raises InvalidRequest."""
        if self.generation_config and self.generation_config.speed:
            return self.generation_config.speed
        if isinstance(self.speed, str) and self.speed not in SPEEDS:
            raise InvalidRequest(
                f"speed {self.speed[:32]!r} is not known; choose one of {', '.join(SPEEDS)}", param="speed"
            )
        speed = SPEEDS[self.speed] if isinstance(self.speed, str) else self.speed or 1.0
        if not 0.25 <= speed <= 4.0:
            raise InvalidRequest(f"speed {speed:g} is out of range; choose one from 0.25 to 4", param="speed")
        return speed


async def manner_of(wanted: Generation, services: Services) -> Manner:
    """How a text is to be spoken. Raises InvalidRequest, UnknownVoice, UnknownModel or Overloaded."""
    if wanted.voice is None or wanted.voice.id is None:
        raise InvalidRequest("voice: give it by its id; GET /voices lists them", param="voice")
    model = None if not wanted.model_id or wanted.model_id.startswith("sonic") else wanted.model_id
    encoding, speed = wanted.output_format.wanted(), wanted.tempo()
    voice = await services.resolver.find(wanted.voice.id, model)
    operator = services.settings.session.text_options
    options = wanted.text_options(language=wanted.locale or voice.language, operator=operator)
    if wanted.normalization == "off":
        options = replace(options, normalise=False)
    timed = bool(wanted.add_timestamps)
    return Manner(edge=EDGE, voice=voice, encoding=encoding, options=options, speed=speed, timed=timed)


def chunk(sound: Sound) -> dict[str, Any]:
    """Audio as their events have it. How long each took to make is not measured: the ledger has what is."""
    data = base64.b64encode(sound.audio).decode("ascii")
    return {"type": "chunk", "data": data, "done": False, "status_code": 206, "step_time": 0.0}


def timestamps(words: Words, *, normalised: bool) -> dict[str, Any]:
    """The times of words in seconds, as their events have them."""
    timed = words.spoken if normalised else words.written
    return {
        "type": "timestamps",
        "done": False,
        "status_code": 206,
        "word_timestamps": {
            "words": [word.text for word in timed],
            "start": [round(word.start_s, 3) for word in timed],
            "end": [round(word.end_s, 3) for word in timed],
        },
        "approximate": words.approximate,
    }
