"""How ElevenLabs' clients send a key, name models and formats, and read errors and characters' times."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Annotated, Any, Literal

from fastapi import Depends
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import HTTPConnection

from app.api.access import bearer_token
from app.api.dialects import DialectRoute, SharedPathRoute
from app.api.services import Services, services_by
from app.errors import InvalidRequest
from app.platform.codecs import Encoding
from app.speech.text.options import TextFields, TextOptions
from app.speech.timing import TimedCharacter
from app.speech.voices import Voice

EDGE = "elevenlabs"
KEY_HEADER = "xi-api-key"

STATUSES = {
    "authentication_failed": "invalid_api_key",
    "permission_denied": "missing_permissions",
    "unknown_voice": "voice_not_found",
    "unknown_model": "model_not_found",
    "text_too_long": "max_character_limit_exceeded",
    "overloaded": "system_busy",
    "session_idle": "input_timeout_exceeded",
}
"""Their word for a code of ours; any other code is its own."""

_FORMAT = re.compile(r"(pcm|wav|ulaw|alaw|opus|mp3)_(\d{4,5})(?:_(\d{2,3}))?")
RATES_HZ = {
    "pcm": (8_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000),
    "wav": (8_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000),
    "ulaw": (8_000,),
    "alaw": (8_000,),
    "opus": (48_000,),
    "mp3": (22_050, 24_000, 44_100),
}
BIT_RATES_KBPS = (32, 48, 64, 96, 128, 192)
DEFAULT_FORMAT = "mp3_44100_128"


def api_key(connection: HTTPConnection) -> str | None:
    """The key of a request: theirs is a header of its own."""
    return connection.headers.get(KEY_HEADER) or bearer_token(connection)


TheServices = Annotated[Services, Depends(services_by(api_key))]
"""The front door's parts as the holder of that key sees them."""


def error_body(status: int, message: str, *, code: str, param: str | None = None) -> dict[str, Any]:
    """`{"detail": {"status", "message", …}}`, where their SDKs look for it."""
    theirs = STATUSES.get(code, code)
    return {"detail": {"type": code, "code": theirs, "status": theirs, "message": message, "param": param}}


class ElevenLabsRoute(DialectRoute):
    """A route of their API alone."""

    body_of = staticmethod(error_body)


class ElevenLabsSharedRoute(SharedPathRoute):
    """Its path is ours, or OpenAI's, too."""

    body_of = staticmethod(error_body)
    header = KEY_HEADER


class VoiceSettings(BaseModel):
    """Of these only the speed can be followed."""

    model_config = ConfigDict(extra="allow")

    speed: float | None = Field(default=None, ge=0.25, le=4.0)

    @property
    def ignored(self) -> list[str]:
        return [f"voice_settings.{name}" for name, value in (self.model_extra or {}).items() if value is not None]


class Reading(TextFields):
    """What they say of how a text is read, and what our other edges do under the same names."""

    language_code: str | None = Field(default=None, max_length=16)
    apply_text_normalization: Literal["auto", "on", "off"] | None = None


def text_options(services: Services, voice: Voice, asked: Reading) -> TextOptions:
    """How a text is read: as our own fields say, and theirs."""
    operator = services.settings.session.text_options
    options = asked.text_options(language=asked.language_code or voice.language, operator=operator)
    return replace(options, normalise=False) if asked.apply_text_normalization == "off" else options


def model_meant(model_id: str | None) -> str | None:
    """The model to ask for: theirs (`eleven_…`) mean whichever model has the voice."""
    return None if not model_id or model_id.startswith("eleven_") else model_id


def encoding_of(output_format: str | None) -> Encoding:
    """What `pcm_24000`, `mp3_44100_128` … name. Raises InvalidRequest."""
    found = _FORMAT.fullmatch(output_format or DEFAULT_FORMAT)
    if found:
        name, rate_hz, kbps = found[1], int(found[2]), int(found[3] or 0)
        if rate_hz in RATES_HZ[name] and (kbps in BIT_RATES_KBPS if name in ("mp3", "opus") else not kbps):
            return Encoding(name, rate_hz, kbps * 1000 or None)
    raise InvalidRequest(
        f"output_format {(output_format or '')[:32]!r} is not known; choose one such as mp3_44100_128, pcm_24000, "
        "opus_48000_64, ulaw_8000 or alaw_8000",
        param="output_format",
    )


def alignment_ms(timed: Iterable[TimedCharacter], *, since_s: float) -> dict[str, Any]:
    """The times of characters as their sockets send them, in milliseconds after `since_s`."""
    chars: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    for it in timed:
        chars.append(it.character)
        starts.append(round((it.start_s - since_s) * 1000))
        ends.append(round((it.end_s - since_s) * 1000))
    durations = [end - start for start, end in zip(starts, ends, strict=True)]
    return {"chars": chars, "charStartTimesMs": starts, "charDurationsMs": durations}


def alignment_s(timed: Iterable[TimedCharacter]) -> dict[str, Any]:
    """The times of characters as their HTTP answers have them, in seconds."""
    timed = list(timed)
    return {
        "characters": [it.character for it in timed],
        "character_start_times_seconds": [round(it.start_s, 3) for it in timed],
        "character_end_times_seconds": [round(it.end_s, 3) for it in timed],
    }
