"""The nouns of the domain as frozen values: models, voices, adapters, workers.

They are what the packages exchange. No value here knows how it is stored or sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

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
    """A voice that can speak. A built-in voice has no adapter: the base model was trained on its name."""

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


class ModelCard(Frozen):
    """The model a worker holds."""

    name: str
    stand_in: bool
    languages: tuple[str, ...]
    voices: tuple[str, ...]
    tags: tuple[str, ...] = Field(default=ORPHEUS_TAGS, description="What it can do but speak: <laugh>.")
    sample_rate_hz: int
    tokens_per_s: float
    checkpoint: str = Field(default="", description="Identifies its weights; empty: unknown.")

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
