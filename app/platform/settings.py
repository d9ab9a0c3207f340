"""Every setting of Carillon in one frozen value, read once from `CARILLON_…` variables and passed to what needs it.

Groups nest with a double underscore: `CARILLON_ENGINE__MAX_LORAS=16`. A name with `_FILE` behind it is a file with
the value, as containers get secrets. Nothing imports a settings instance; nothing reads the environment elsewhere.
Absent addresses (Redis, S3, database) mean the embedded ones of `carillon up`.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from app.errors import ConfigurationError
from app.platform.front_door_settings import (
    ConsoleSettings,
    LimitSettings,
    MetricsSettings,
    OpenAISettings,
    PriceSettings,
    TalkSettings,
    TracingSettings,
)
from app.platform.profiles import EngineProfile
from app.speech.field_errors import reason
from app.speech.recipe import CloneConfig
from app.speech.text.options import EmojiReading, TextOptions, UrlReading
from app.speech.token_layout import SpeechConfig

PREFIX = "CARILLON_"
FILE_SUFFIX = "_FILE"
NOT_SETTINGS = frozenset({"CARILLON_URL", "CARILLON_KEY", "CARILLON_BUILD"})
"""Variables of the command line's clients and of the installation."""

ANY_HOST = frozenset({"0.0.0.0", "::", ""})
LOOPBACK_HOSTS = frozenset({"127.0.0.1", "::1", "localhost"})

STAND_IN = Path(__file__).resolve().parents[2] / "training" / "standin" / "checkpoint"


def _names(value: Any) -> Any:
    return tuple(value.replace(",", " ").split()) if isinstance(value, str) else value


HostNames = Annotated[tuple[str, ...], BeforeValidator(_names)]
"""Names with commas or spaces between."""


class EngineSettings(BaseModel):
    """vLLM. What is None here is decided by the device: `app.platform.profiles`; a worker prints what is in force."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        default="auto", description="auto: bfloat16 on a card or a processor that multiplies it, else float32."
    )
    quantization: str = Field(
        default="auto",
        description="auto: fp8_per_channel on a card with FP8 units, else none; or vLLM's own name; or none. "
        "Plain 'fp8' on a bf16 checkpoint is refused by vLLM 0.32.",
    )
    max_model_len: int = Field(default=4096, ge=256, description="Prompt and audio tokens of one chunk of text.")
    max_num_seqs: int | None = Field(
        default=None,
        ge=1,
        description="Streams in one batch; default: capacity. vLLM's own default is 128 on any card.",
    )
    max_num_batched_tokens: int | None = Field(
        default=None, ge=256, description="Prefill tokens of one step; default: 4096."
    )
    max_loras: int | None = Field(
        default=None, ge=1, description="LoRA slots: distinct voices in one batch; default: 4 on a CPU, 4–32 on a card."
    )
    max_cpu_loras: int | None = Field(
        default=None, ge=1, description="Adapters kept in host memory; default: 32 on a CPU, 4 × max_loras on a card."
    )
    max_lora_rank: Literal[8, 16, 32, 64, 128] = Field(default=16, description="Each slot is allocated at this rank.")
    kv_cache_gib: int = Field(default=1, ge=1, description="CPU only: VLLM_CPU_KVCACHE_SPACE, whole GiB.")
    cpu_threads: int = Field(default=1, ge=1, description="CPU only: OpenMP threads of the engine. 1 is fastest here.")
    gpu_memory_utilization: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="GPU only: the worker's share of its card; default: 0.85, the rest being for the codec. `carillon "
        "up` gives less where the trainer has the same card.",
    )
    stream_interval: int | None = Field(
        default=None,
        ge=1,
        description="Tokens between two reports of the engine; default: 1 on a CPU, 7 on a card: a frame, which saves "
        "host time.",
    )
    temperature: float | None = Field(default=None, ge=0, le=2, description="None: the checkpoint's generation config.")
    top_p: float | None = Field(default=None, gt=0, le=1, description="None: the checkpoint's generation config.")
    repetition_penalty: float | None = Field(default=None, gt=0, description="Orpheus's model card asks for ≥ 1.1.")
    startup_timeout_s: float = Field(default=600, gt=0, description="How long the engine may take to load.")
    hang_timeout_s: float = Field(
        default=60, gt=0, description="An engine that does nothing for so long though it has work is restarted."
    )


class SessionSettings(BaseModel):
    """Limits and pacing of sessions."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_input_chars: int = Field(default=4096, ge=1, description="Of one /v1/audio/speech call, as OpenAI's.")
    max_pending_chars: int = Field(default=20_000, ge=100, description="Text sent into a session and not yet spoken.")
    max_chunk_chars: int = Field(default=300, ge=50, description="Of one engine request.")
    max_sessions_per_socket: int = Field(default=64, ge=1, le=65_535, description="Open at once on one WebSocket.")
    idle_text_s: float = Field(default=0.25, gt=0, description="Text that pauses so long is spoken as far as it goes.")
    lead_s: float = Field(default=1.5, gt=0, description="Later text is spoken once less audio than this is in hand.")
    idle_timeout_s: float = Field(default=60, gt=0, description="A session without messages for so long is ended.")
    idle_socket_s: float = Field(
        default=900, gt=0, description="A WebSocket on which nothing is sent or spoken for so long is closed."
    )
    idle_place_s: float = Field(
        default=10,
        gt=0,
        description="A session without text or audio for so long gives its place to others, sooner where another "
        "waits for one, and takes one again with its next text.",
    )
    slow_reader_timeout_s: float = Field(
        default=30, gt=0, description="A client that reads nothing for so long is disconnected."
    )
    stall_timeout_s: float = Field(default=20, gt=0, description="No audio for so long while text is pending: a fault.")
    queue_timeout_s: float = Field(default=1.0, ge=0, description="How long a start waits for room before 503.")
    move_timeout_s: float = Field(
        default=60, gt=0, description="How long a session whose worker is gone waits for a place at another."
    )
    waiting_notice_s: float = Field(
        default=5, gt=0, description="How often the client of a waiting session hears what it waits for."
    )
    resume_ttl_s: float = Field(
        default=60, gt=0, description="How long a resumable session can be taken up after its connection broke."
    )
    resume_window_s: float = Field(
        default=30, gt=0, description="How much audio a listener may lack and still hear all of it when it resumes."
    )
    journal_interval_s: float = Field(
        default=0.2, gt=0, description="How often what has changed in resumable sessions is written to Redis."
    )
    connect_timeout_s: float = Field(default=5, gt=0, description="From a front door to a worker.")
    ready_timeout_s: float = Field(
        default=30.0, gt=0, description="How long a worker may take to load an adapter before the session is ready."
    )
    buffer_s: float = Field(default=8, gt=0, description="Audio held for a client that reads slowly.")
    urls: UrlReading = Field(default=UrlReading.HOST, description="How much of a web address is read aloud.")
    emoji: EmojiReading = Field(default=EmojiReading.DROP, description="Whether emoji are named, or left out.")

    @property
    def text_options(self) -> TextOptions:
        """How text is read where its sender chose nothing."""
        return TextOptions(urls=self.urls, emoji=self.emoji)

    @model_validator(mode="after")
    def _one_call_fits_into_a_session(self) -> Self:
        if self.max_input_chars > self.max_pending_chars:
            raise ValueError(
                f"max_input_chars ({self.max_input_chars}) is more than max_pending_chars ({self.max_pending_chars}): "
                "raise the latter"
            )
        return self


class StoreSettings(BaseModel):
    """The S3-compatible object store."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    endpoint_url: str | None = Field(default=None, description="Default: the embedded store.")
    region: str = Field(default="us-east-1", description="As the store names it.")
    bucket: str = Field(default="carillon", description="Everything lies in this one bucket.")
    access_key: SecretStr = Field(default=SecretStr(""), description="The id of the store's credentials.")
    secret_key: SecretStr = Field(default=SecretStr(""), description="Their secret.")


class CloningSettings(BaseModel):
    """Uploads, and where clone jobs find what they need; the recipe itself is `clone`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_sample_bytes: int = Field(default=1024**3, ge=1024, description="Of one uploaded recording.")
    max_samples: int = Field(default=2000, ge=1, description="Recordings of one voice.")
    max_sample_s: float = Field(default=7200.0, gt=0, description="Of one recording; a longer one is refused.")
    max_consent_s: float = Field(default=60.0, gt=0, description="Of a recorded consent.")
    consent_voice: Literal["report", "refuse"] = Field(
        default="report",
        description="What becomes of a clone whose consent seems to be spoken by another voice than its recordings.",
    )
    inspection_timeout_s: float = Field(default=120.0, gt=0, description="Of looking at one uploaded file.")
    transcriber_url: str | None = Field(
        default=None, description="An OpenAI-compatible /v1/audio/transcriptions; default: what is here hears."
    )
    transcriber_key: SecretStr = Field(default=SecretStr(""), description="The bearer token for that endpoint.")
    transcriber_model: str = Field(default="whisper-1", description="The `model` asked of that endpoint.")
    whisper_model: str | None = Field(
        default=None,
        description="Of a local faster-whisper (extra `whisper`): a directory or a name on a hub; default: English is "
        "heard by the recogniser that comes with Carillon, other languages by none.",
    )
    webhook_secret: SecretStr = Field(
        default=SecretStr(""), description="Signs webhooks (Standard Webhooks, `whsec_…`); without it none are sent."
    )
    webhook_private_hosts: bool = Field(
        default=False, description="Whether a webhook may go to a private address, this machine included."
    )
    trainer_threads: int = Field(default=1, ge=1, description="CPU only.")
    max_attempts: int = Field(default=20, ge=1, description="Of one job, before it fails.")


class NarrationSettings(BaseModel):
    """Long renders of whole texts. Their webhooks are signed as those of `cloning`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_text_bytes: int = Field(default=5 * 1024**2, ge=1024, description="Of the text of one narration.")
    max_file_bytes: int = Field(default=64 * 1024**2, ge=1024, description="Of an uploaded book, pictures and all.")
    max_cover_bytes: int = Field(
        default=8 * 1024**2, ge=1024, le=10 * 1024**2, description="At most 10 MiB: no FLAC holds more than 16."
    )
    reading_s_per_mb: float = Field(
        default=30.0,
        gt=0,
        description="CPU time for taking a megabyte of a text apart, beside 15 s for any.",
    )
    at_once: int = Field(
        default=2, ge=1, description="Chapters that one `carillon tasks --queue render` process renders at a time."
    )
    turn_s: float = Field(
        default=600.0,
        gt=0,
        description="A chapter is rendered, or waits for room, for so long; then others have a turn.",
    )
    max_setbacks: int = Field(
        default=20, ge=1, description="Dead processes and passing failures over one chapter before it fails."
    )
    worker_usd_per_hour: float | None = Field(
        default=None, ge=0, description="What a worker costs; with it narrations report their share of it."
    )
    link_ttl_s: int = Field(
        default=24 * 3600, ge=10, le=7 * 24 * 3600, description="How long a signed link holds; listening takes a while."
    )
    segment_days: float = Field(
        default=30.0, gt=0, description="How long rendered segments are kept, for a narration that is submitted again."
    )


class _Environment(EnvSettingsSource):
    """The variables. A list is JSON, or plain words: those are for the field to read, or to refuse."""

    def _load_env_vars(self) -> Mapping[str, str | None]:
        variables = dict(super()._load_env_vars())
        for name, path in list(variables.items()):
            if path and name.startswith(PREFIX.lower()) and name.endswith(FILE_SUFFIX.lower()):
                del variables[name]
                variables.setdefault(name.removesuffix(FILE_SUFFIX.lower()), _read_value(Path(path)))
        return variables

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            return value


class Settings(BaseSettings):
    """One process's settings. Build it with `load_settings`, which turns mistakes into one readable error."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", frozen=True, extra="forbid", env_ignore_empty=True
    )

    data_dir: Path = Field(default=Path("data"), description="Embedded stores, caches, run.json.")
    model: str = Field(default=str(STAND_IN / "model"), description="Language model: a directory or a hub id.")
    codec: str = Field(default=str(STAND_IN / "codec"), description="SNAC codec: a directory or a hub id.")
    codec_noise: bool = Field(
        default=True,
        description="Whether the noise blocks of a codec that has them (snac_24khz) add noise, as it was trained. Off: "
        "they add none, which costs less. The same for all workers of a model.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="auto: cuda where a GPU and the CUDA build of vLLM are found."
    )

    database_url: str | None = Field(default=None, description="SQLAlchemy URL; default: SQLite in data_dir.")
    redis_url: SecretStr | None = Field(default=None, description="redis:// or rediss://; default: embedded Valkey.")
    store: StoreSettings = StoreSettings()

    api_host: str = Field(default="127.0.0.1", description="Where the front door listens; 0.0.0.0: on every interface.")
    api_port: int = Field(default=8000, ge=0, le=65_535, description="0: a free one.")
    cors_origins: tuple[str, ...] = Field(
        default=(), description="Web pages that may call the front door, as JSON or words; `*`: all of them."
    )
    auth: bool = Field(default=True, description="Off: any caller may do anything. For a private machine only.")
    allowed_hosts: HostNames = Field(
        default=(),
        description="Where auth is off: what requests may name as Host and Origin beside loopback names, with commas "
        "between.",
    )
    connections_per_address: int = Field(
        default=1000, ge=1, description="Open at once from one address; a proxy before the front door is one address."
    )
    key_pepper: SecretStr = Field(default=SecretStr(""), description="HMAC key of stored API keys; same everywhere.")
    fleet_secret: SecretStr = Field(default=SecretStr(""), description="What front doors show to workers.")

    worker_id: str | None = Field(default=None, description="Default: host name and port.")
    worker_host: str = Field(default="127.0.0.1", description="Where a worker listens; 0.0.0.0: on every interface.")
    worker_port: int = Field(default=0, ge=0, le=65_535, description="0: a free one.")
    worker_address: str | None = Field(
        default=None,
        description="What front doors dial; default: ws://host:port, with this machine's name for a host of 0.0.0.0.",
    )
    capacity: int | None = Field(
        default=None,
        ge=1,
        description="Sessions a worker speaks with in real time; default: 4 on a CPU, 8–128 on a card; measure it.",
    )
    heartbeat_s: float = Field(default=1.0, gt=0, description="Between two reports of a worker to Redis.")
    worker_ttl_s: float = Field(default=3.0, gt=0, description="A worker silent for so long is not routed to.")
    lease_ttl_s: float = Field(
        default=10.0, gt=0, description="A claimed place that no heartbeat renews is free after so long."
    )
    fleet_refresh_s: float = Field(default=0.5, gt=0, description="How old a front door's view of the workers may be.")
    drain_timeout_s: float = Field(default=30.0, gt=0, description="How long running sessions may go on at shutdown.")
    handover_timeout_s: float = Field(
        default=20.0, ge=0, description="How long front doors may then take to move what is left to other workers."
    )
    warm_up_voices: int | None = Field(
        default=None,
        ge=0,
        description="Of the voices wanted most, a worker that joins loads so many before it takes sessions; "
        "default: half of engine.max_cpu_loras.",
    )
    warm_up_timeout_s: float = Field(default=30.0, ge=0, description="How long a worker that joins may take over it.")

    speech: SpeechConfig = Field(
        default=SpeechConfig(),
        description="What a checkpoint does not say of itself in the `speech` entry of its config.json. What it says "
        "may not be contradicted, but for its name.",
    )
    engine: EngineSettings = EngineSettings()
    session: SessionSettings = SessionSettings()
    openai: OpenAISettings = OpenAISettings()
    console: ConsoleSettings = ConsoleSettings()
    limits: LimitSettings = LimitSettings()
    prices: PriceSettings = PriceSettings()
    cloning: CloningSettings = CloningSettings()
    narration: NarrationSettings = NarrationSettings()
    talk: TalkSettings = TalkSettings()
    metrics: MetricsSettings = MetricsSettings()
    tracing: TracingSettings = TracingSettings()
    clone: CloneConfig = Field(default=CloneConfig(), description="The recipe: prepare, train, gate.")

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="The least that is logged."
    )
    log_format: Literal["text", "json"] = Field(default="text", description="json: one object a line.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, _Environment(settings_cls)

    def over(self, profile: EngineProfile) -> EngineProfile:
        """`profile` with what is set here in its place."""
        chosen = self.engine.model_dump(include={field.name for field in fields(profile)}, exclude_none=True)
        if self.capacity is not None:
            chosen = {"capacity": self.capacity, "max_num_seqs": self.capacity, **chosen}
        profile = replace(profile, **chosen)
        return replace(profile, max_cpu_loras=max(profile.max_cpu_loras, profile.max_loras))

    @property
    def database(self) -> str:
        """The SQLAlchemy URL in force."""
        return self.database_url or f"sqlite+aiosqlite:///{self.database_file.absolute()}"

    @property
    def database_file(self) -> Path:
        """Where the catalogue is if no database is configured."""
        return self.data_dir / "carillon.db"


def load_settings(**overrides: Any) -> Settings:
    """Settings from the environment and `overrides`. Raises ConfigurationError naming each variable that is wrong."""
    settings: Settings | None = None
    wrong = list(_unknown_variables())
    try:
        settings = Settings(**overrides)
    except ValidationError as error:
        wrong += [
            f"{PREFIX}{'__'.join(str(part) for part in problem['loc']).upper()}: {reason(problem)}"
            for problem in error.errors()
        ]
    if settings is None or wrong:
        raise ConfigurationError("; ".join(wrong))
    return settings


def _read_value(path: Path) -> str | None:
    """What a file holds, without the newline that editors leave. `load_settings` has said what cannot be read."""
    try:
        return path.read_text("utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError):
        return None


def _unknown_variables() -> Iterator[str]:
    """What is wrong with variables of ours that set nothing: a misspelt one would be passed over in silence."""
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    for variable, value in os.environ.items():
        name = variable.upper()
        if value and name.startswith(PREFIX) and name.endswith(FILE_SUFFIX):
            name = name.removesuffix(FILE_SUFFIX)
            if os.environ.get(name):
                yield f"{variable}: {name} is set, too; leave one of them"
            elif _read_value(Path(value)) is None:
                yield f"{variable}: {value} cannot be read as text"
        name = name.partition("__")[0]
        if value and name.startswith(PREFIX) and name not in known | NOT_SETTINGS:
            near = difflib.get_close_matches(name, known, n=1)
            yield f"{variable}: there is no such setting" + (f"; did you mean {near[0]}?" if near else "")


def without_secrets(url: str) -> str:
    """An address safe to show: without credentials and query."""
    scheme, separator, rest = url.rpartition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2].partition('?')[0]}"
