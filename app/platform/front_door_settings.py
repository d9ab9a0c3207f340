"""The settings of the front door's own parts: limits, prices, OpenAI's dialect, console, talk, metrics and traces.

They are groups of `app.platform.settings.Settings`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from app.platform.limit_values import Limits


class LimitSettings(BaseModel):
    """What callers may do. Without any of these, as much as the fleet can."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    project: Limits = Field(
        default=Limits(), description="Of every project that has none of its own, all keys together."
    )
    key: Limits = Field(default=Limits(), description="Of every single key.")
    reserve: float = Field(
        default=0, ge=0, lt=1, description="The share of the fleet's places that one project leaves to the others."
    )
    when_redis_is_away: Literal["open", "closed"] = Field(
        default="open", description="Whether requests that cannot be counted pass, or are refused."
    )


class PriceSettings(BaseModel):
    """What use costs, for `GET /v1/usage` and for budgets (`limits.project.usd_per_month`)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    usd_per_million_characters: float = Field(default=0, ge=0, description="Of text that was to be spoken.")
    usd_per_audio_hour: float = Field(default=0, ge=0, description="Of speech that was made.")
    usd_per_gpu_hour: float = Field(default=0, ge=0, description="Of clone jobs, and of places taken by narrations.")
    warn_at: float = Field(default=0.8, gt=0, le=1, description="The share of a budget from which its use is told.")


class OpenAISettings(BaseModel):
    """How `/v1/audio` meets clients that were written for OpenAI."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    strict: bool = Field(
        default=False,
        description="Refuse fields that are not known or cannot be honoured; else they are ignored, and named in "
        "`X-Carillon-Ignored`.",
    )
    wav_hold_s: float = Field(
        default=0.1,
        ge=0,
        description="How much later than its first audio a short text's WAV may begin: if it is whole by then, its "
        "header tells its true length.",
    )
    voices: Mapping[str, str] = Field(
        default={},
        description='Which voice a name means that no voice has: `{"alloy": "wren"}`. OpenAI\'s 13 names have a '
        "built-in voice each where nothing is said.",
    )
    open_listings: bool = Field(
        default=False, description="`GET /v1/models` and `/v1/audio/voices` need no key; `make up` turns it on."
    )


class ConsoleSettings(BaseModel):
    """Carillon in a browser, at the front door's own address."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = Field(default=True, description="Whether the front door serves it at `/`.")


class TalkSettings(BaseModel):
    """The conversation at `/talk`: who hears, who answers, and when a turn is over."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = Field(default=True, description="Whether there is a `/talk`.")
    transcription_url: str | None = Field(
        default=None, description="An OpenAI-compatible /v1/audio/transcriptions; default: the bundled recogniser."
    )
    transcription_key: SecretStr = Field(default=SecretStr(""), description="The bearer token for that endpoint.")
    transcription_model: str = Field(default="whisper-1", description="The `model` asked of that endpoint.")
    chat_url: str | None = Field(
        default=None, description="An OpenAI-compatible /v1/chat/completions; default: a scripted host, no model."
    )
    chat_key: SecretStr = Field(default=SecretStr(""), description="The bearer token for that endpoint.")
    chat_model: str = Field(default="gpt-4o-mini", description="The `model` asked of that endpoint.")
    instructions: str = Field(
        default="You are heard, not read. Answer in one to three short spoken sentences, without lists or markup.",
        description="The system message of the chat.",
    )
    voice: str | None = Field(default=None, description="Who speaks where a page names none; default: the first voice.")
    snooze_s: float = Field(
        default=1.5,
        ge=0.3,
        le=10,
        description="Silence after which a turn is over, whatever was said. What is ready by then is in the money.",
    )
    sure_s: float = Field(
        default=0.6, ge=0.2, le=10, description="Silence after which a turn that reads finished is over."
    )
    max_conversations: int = Field(default=8, ge=1, description="Open at once at one front door.")
    max_minutes: float = Field(default=30, gt=0, description="Of one conversation.")
    ice_servers: tuple[str, ...] = Field(
        default=(), description="STUN or TURN addresses for WebRTC; none are needed on one network."
    )


class MetricsSettings(BaseModel):
    """What Prometheus is told. Front doors and workers answer `/metrics` on their own ports."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    in_the_money_s: float = Field(
        default=1.5,
        gt=0,
        description="First sounds that are audible within so long are counted as in the money: a turn-taking agent "
        "waits about that long before it may speak.",
    )
    tasks_host: str = Field(default="127.0.0.1", description="Where a tasks process answers `/metrics`.")
    tasks_port: int | None = Field(
        default=None, ge=0, le=65_535, description="0: a free one, which is logged; default: it answers nowhere."
    )


class TracingSettings(BaseModel):
    """OpenTelemetry: spans from the request through worker and task."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    endpoint: str | None = Field(
        default=None,
        description="Where spans are sent: an OTLP/HTTP address such as http://collector:4318/v1/traces (extra "
        "`tracing`); default: none are made.",
    )
    sample_ratio: float = Field(
        default=1.0, ge=0, le=1, description="Of the requests that bring no decision of their own."
    )
