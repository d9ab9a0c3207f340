"""The nouns of the domain as frozen values: models, voices, adapters, workers.

They are what the rooms of the house tell each other. No value here knows how it is stored or sent.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

from app.core.errors import UnknownModel, UnknownVoice
from app.core.orpheus import ORPHEUS_TAGS


class Frozen(BaseModel):
    """A value: immutable, and strict about the fields it is given; its numbers are numbers, for JSON has no others."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class AudioFormat(StrEnum):
    """The encodings a client can ask for; `pcm` is raw signed 16-bit little-endian mono."""

    MP3 = "mp3"
    OPUS = "opus"
    AAC = "aac"
    FLAC = "flac"
    WAV = "wav"
    PCM = "pcm"


class AdapterVersion(Frozen):
    """One published LoRA of one voice. Immutable: a better one is another version.

    `lora_id` is unique among all versions ever published (vLLM identifies adapters by name *and* dislikes one name
    under two ids), positive and int32. `uri` is a `s3://bucket/prefix/` or `file:///directory/`; `sha256` maps each
    file below it to its hash.
    """

    voice_id: str
    version: int = Field(ge=1)
    lora_id: int = Field(ge=1, lt=2**31)
    uri: str
    sha256: Mapping[str, str]
    rank: int = Field(ge=1)

    @property
    def name(self) -> str:
        """The engine's name for it; another version is another name."""
        return f"{self.voice_id}@{self.version}"


class Voice(Frozen):
    """A voice somebody can ask for. A built-in voice has no adapter: the base model learnt its name."""

    id: str
    name: str
    model: str
    language: str = "en"
    adapter: AdapterVersion | None = None
    trained_as: str | None = Field(default=None, description="A clone under its id, a polished voice under its name.")

    @property
    def prompt_name(self) -> str:
        """The name the model reads before the text."""
        return self.trained_as or (self.id if self.adapter else self.name)


class Scope(StrEnum):
    """What a key may do. `admin` may do everything."""

    SPEAK = "speak"
    CLONE = "clone"
    NARRATE = "narrate"
    FLEET = "fleet"
    ADMIN = "admin"


class ApiKey(Frozen):
    """A key as the catalogue knows it: never the token, which is shown once when it is made."""

    id: str
    name: str
    scopes: frozenset[Scope]
    created_at: datetime
    expires_at: datetime | None = None
    last_used_at: datetime | None = None
    revoked_at: datetime | None = None

    def allows(self, scope: Scope) -> bool:
        return scope in self.scopes or Scope.ADMIN in self.scopes


class ModelCard(Frozen):
    """What a worker says of the model it holds."""

    name: str
    stand_in: bool
    languages: tuple[str, ...]
    voices: tuple[str, ...]
    tags: tuple[str, ...] = Field(default=ORPHEUS_TAGS, description="What it can do but speak: <laugh>.")
    sample_rate_hz: int
    tokens_per_s: float


class WorkerState(StrEnum):
    STARTING = "starting"
    ACTIVE = "active"
    DRAINING = "draining"


class Worker(Frozen):
    """One worker as its last heartbeat described it."""

    id: str
    epoch: int = Field(description="Grows with every start of the process; what an older epoch held is gone.")
    address: str = Field(description="ws://host:port of its private server")
    model: ModelCard
    state: WorkerState
    capacity: int = Field(description="Sessions it can speak with at once, in real time.")
    max_voices: int = Field(description="Distinct adapters it may have active at once: vLLM's LoRA slots.")
    inflight: int = Field(default=0, description="Sessions somebody waits for.")
    active_adapters: frozenset[str] = Field(default=frozenset(), description="What these need.")
    background: int = Field(default=0, description="Sessions in spare places, which end when one is wanted.")
    background_adapters: frozenset[str] = Field(default=frozenset(), description="What only these need.")
    ready_adapters: frozenset[str] = frozenset()


def resolve_voice(name: str, *, model: str | None, cards: Iterable[ModelCard], clones: Iterable[Voice]) -> Voice:
    """The voice a request means: a clone by id or name, or else a built-in voice of a model that is served.

    `model` None means any. Raises UnknownModel or UnknownVoice, each with what there is to choose from.
    """
    by_name = {card.name: card for card in cards}
    if model is not None and model not in by_name:
        raise UnknownModel(
            f"model {model!r} is not served here; served are: {', '.join(sorted(by_name)) or 'none'}", param="model"
        )
    served = [card for card in by_name.values() if model in (None, card.name)]
    candidates = [voice for voice in clones if any(voice.model == card.name for card in served)]
    candidates += [
        Voice(id=built_in, name=built_in, model=card.name, language=card.languages[0])
        for card in served
        for built_in in card.voices
    ]
    for voice in candidates:
        if name in (voice.id, voice.name):
            return voice
    known = sorted({voice.name for voice in candidates})
    nearest = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or known[:8]
    raise UnknownVoice(f"voice {name[:64]!r} does not exist; the nearest are: {', '.join(nearest)}", param="voice")
