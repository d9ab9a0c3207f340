"""The nouns of the domain as frozen values: models, voices, adapters, workers.

They are what the rooms of the house tell each other. No value here knows how it is stored or sent.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from app.errors import UnknownModel, UnknownVoice
from app.speech.choices import Scope
from app.speech.token_layout import ORPHEUS_TAGS, TokenLayout


class Frozen(BaseModel):
    """A value: immutable, and strict about the fields it is given; its numbers are numbers, for JSON has no others."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


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


MAX_KEY_NAME_CHARS = 100


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
    checkpoint: str = Field(default="", description="Tells its weights from those of others; empty: not told.")

    @classmethod
    def of(cls, layout: TokenLayout, *, checkpoint: str = "") -> Self:
        """The card of a voice model with this layout."""
        speech = layout.speech
        return cls(
            name=speech.name,
            stand_in=speech.stand_in,
            languages=speech.languages,
            voices=speech.voices,
            tags=speech.tags,
            sample_rate_hz=layout.sample_rate_hz,
            tokens_per_s=layout.tokens_per_s,
            checkpoint=checkpoint,
        )


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
    pace_s_per_s: float | None = Field(
        default=None, description="Seconds of work for a second of speech with all sessions at once, where measured."
    )
    part: str = Field(default="", description="Which part of its start it is in, while it is starting.")


class Roster:
    """The voices that can be asked for: clones by id or name, then the built-in voices of the models that are served.

    Made once, so that each of many starts costs a look and no more, however many voices there are.
    """

    def __init__(self, cards: Iterable[ModelCard], clones: Iterable[Voice]) -> None:
        self._models = {card.name: card for card in cards}
        self._voices = [voice for voice in clones if voice.model in self._models]
        self._voices += [built_in for card in self._models.values() for built_in in built_in_voices(card)]
        self._found: dict[tuple[str | None, str], Voice] = {}
        for voice in self._voices:
            for key in itertools.product((None, voice.model), (voice.id, voice.name)):
                self._found.setdefault(key, voice)

    def find(self, name: str, model: str | None) -> Voice:
        """The voice a request means; `model` None means any.

        Raises UnknownModel or UnknownVoice, each with what there is to choose from.
        """
        if model is not None and model not in self._models:
            raise UnknownModel(
                f"model {model!r} is not served here; served are: {', '.join(sorted(self._models)) or 'none'}",
                param="model",
            )
        voice = self._found.get((model, name))
        if voice is not None:
            return voice
        known = sorted({voice.name for voice in self._voices if model in (None, voice.model)})
        nearest = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or known[:8]
        raise UnknownVoice(f"voice {name[:64]!r} does not exist; the nearest are: {', '.join(nearest)}", param="voice")


def built_in_voices(card: ModelCard) -> list[Voice]:
    """The voices that a model learnt by name."""
    return [Voice(id=name, name=name, model=card.name, language=card.languages[0]) for name in card.voices]
