"""How a speech language model writes sound: token roles, prompt, and the interleaving of a frame's codes.

Everything is read from the checkpoint: the `speech` key of the language model's `config.json` and the codec's
`config.json`. What they leave out can be set (`CARILLON_SPEECH__…`), and has Orpheus-3B's value otherwise
(canopylabs/orpheus-3b-0.1-ft, snac_24khz); its name is then that of the hub id, or of the directory. The module knows
nothing of tokenizers, torch or engines: it turns ids into codes and back.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import cycle, islice
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from app.errors import ConfigurationError
from app.speech.field_errors import first_fault

TOKENS_PER_FRAME = 7
"""SNAC with three levels at strides 4, 2, 1 writes 1 + 2 + 4 codes a frame; Orpheus and its kin use no other."""

LORA_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The projections an adapter changes: the trainer makes weights for these, and the engine slots for no others."""

ORPHEUS_TAGS = ("<laugh>", "<chuckle>", "<sigh>", "<cough>", "<sniffle>", "<groan>", "<yawn>", "<gasp>")
ORPHEUS_VOICES = ("tara", "leah", "jess", "leo", "dan", "mia", "zac", "zoe")


_Config = TypeVar("_Config", bound=BaseModel)


class SpeechConfig(BaseModel):
    """The `speech` key of a checkpoint's `config.json`: the roles of its special tokens, its voices, its prompt."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(
        default="orpheus",
        min_length=1,
        max_length=128,
        pattern=r"^[A-Za-z0-9][\w.:+-]*$",
        description="Of the model, as clients see it.",
    )
    stand_in: bool = Field(default=False, description="Whether it is shown as a stand-in.")
    languages: tuple[str, ...] = Field(default=("en",), min_length=1, description="That it speaks.")
    voices: tuple[str, ...] = Field(default=ORPHEUS_VOICES, min_length=1, description="Built into it.")
    tags: tuple[str, ...] = Field(default=ORPHEUS_TAGS, description="That it voices instead of reading them.")
    audio_token_base: int = Field(default=128266, description="The token of the first code.")
    start_of_text_id: int = Field(default=128000, description="Begins the prompt's text.")
    end_of_text_id: int = Field(default=128009, description="Ends the prompt's text.")
    start_of_speech_id: int = Field(default=128257, description="Begins the codes.")
    end_of_speech_id: int = Field(default=128258, description="Ends the codes.")
    start_of_human_id: int = Field(default=128259, description="Begins the prompt.")
    end_of_human_id: int = Field(default=128260, description="Ends the prompt.")
    start_of_ai_id: int = Field(default=128261, description="Begins the answer.")
    end_of_ai_id: int = Field(default=128262, description="Ends the answer.")
    pad_id: int = Field(default=128263, description="Fills batches up.")
    prompt_form: str = Field(default="{voice}: {text}", description="How voice and text become a prompt.")
    recipe: Mapping[str, float | int] = Field(
        default_factory=dict, description="Of TrainConfig: what suits this model better than it suits Orpheus."
    )
    gate: Mapping[str, float | int] = Field(
        default_factory=dict, description="Of GateConfig: what a voice of this model can reach, where that is less."
    )
    loudness_lufs: float = Field(default=-23.0, description="Of its voices; recordings of others are brought to it.")

    @field_validator("languages", "voices", "tags", mode="before")
    @classmethod
    def _is_a_list(cls, value: Any) -> Any:
        """An environment variable holds `tara, leo`."""
        return [word.strip() for word in value.split(",") if word.strip()] if isinstance(value, str) else value

    @field_validator("prompt_form")
    @classmethod
    def _is_a_form(cls, value: str) -> str:
        try:
            if {"tara", "Hello"} <= set(re.findall(r"\w+", value.format(voice="tara", text="Hello"))):
                return value
        except (LookupError, ValueError):
            pass
        raise ValueError("it must have {voice} and {text} in it, and no other braces")

    @property
    def control_ids(self) -> frozenset[int]:
        """The tokens that steer the model, which no text may become."""
        return frozenset(
            value for name, value in self.model_dump().items() if name.endswith("_id") and isinstance(value, int)
        )


class CodecConfig(BaseModel):
    """The part of a SNAC `config.json` that shapes the stream. Unknown keys belong to the codec class."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    sampling_rate: int = 24_000
    encoder_rates: tuple[int, ...] = (2, 4, 8, 8)
    codebook_size: int = 4096
    vq_strides: tuple[int, ...] = (4, 2, 1)

    @model_validator(mode="after")
    def _is_orpheus_shaped(self) -> CodecConfig:
        if self.vq_strides != (4, 2, 1):
            raise ValueError(f"vq_strides are {list(self.vq_strides)}; a 7-token frame needs [4, 2, 1]")
        return self


class TokenLayout(BaseModel):
    """Where each code of a frame lies in the vocabulary, and how long a frame sounds."""

    model_config = ConfigDict(frozen=True)

    speech: SpeechConfig
    codebook_size: int
    samples_per_frame: int
    sample_rate_hz: int

    @property
    def tokens_per_s(self) -> float:
        """Tokens the model must write for one second of sound: 82.03 at 24 kHz and 2048 samples a frame."""
        return TOKENS_PER_FRAME * self.sample_rate_hz / self.samples_per_frame

    @property
    def end_id(self) -> int:
        """The token that ends the model's speech (Orpheus: 128258)."""
        return self.speech.end_of_speech_id

    def band(self, position: int) -> tuple[int, int]:
        """The half-open range of token ids that may stand at `position` (0-based, since the start of speech)."""
        start = self.speech.audio_token_base + position % TOKENS_PER_FRAME * self.codebook_size
        return start, start + self.codebook_size

    def token(self, code: int, position: int) -> int:
        """The token that means `code` at `position`."""
        return self.band(position)[0] + code

    def code(self, token_id: int, position: int) -> int:
        """The codebook index (0 ≤ code < codebook_size) that `token_id` means at `position`.

        Raises ValueError for a token of another band: with the band mask on, that is a defect, never data.
        """
        start, stop = self.band(position)
        if not start <= token_id < stop:
            raise ValueError(f"token {token_id} at position {position} is outside its band [{start}, {stop})")
        return token_id - start

    def codes(self, token_ids: Sequence[int], position: int) -> list[int]:
        """What the tokens mean that stand from `position` on, one after the other. Raises what `code` raises."""
        starts = islice(cycle(self._band_starts), position % TOKENS_PER_FRAME, None)
        codes = [token_id - start for token_id, start in zip(token_ids, starts, strict=False)]
        if codes and not (min(codes) >= 0 and max(codes) < self.codebook_size):
            return [self.code(token_id, position + offset) for offset, token_id in enumerate(token_ids)]
        return codes

    @cached_property
    def _band_starts(self) -> tuple[int, ...]:
        return tuple(self.band(position)[0] for position in range(TOKENS_PER_FRAME))

    def text(self, voice: str, text: str) -> str:
        """The words of the prompt, before tokenizing: `tara: Hello`."""
        return self.speech.prompt_form.format(voice=voice, text=text)

    def prompt(self, text_ids: Sequence[int]) -> list[int]:
        """The token ids that make the model speak: everything up to and with the start of speech."""
        s = self.speech
        return [
            s.start_of_human_id,
            s.start_of_text_id,
            *text_ids,
            s.end_of_text_id,
            s.end_of_human_id,
            s.start_of_ai_id,
            s.start_of_speech_id,
        ]


def read_layout(model_dir: Path, codec_dir: Path, configured: SpeechConfig | None = None) -> TokenLayout:
    """Read the layout of a voice model: a language model's directory and its codec's.

    Of `configured`, the fields that were set stand for what the checkpoint does not say; its name stands in any case,
    for it is no property of the weights. Raises ConfigurationError naming the file and the field that does not fit, or
    that `configured` contradicts.
    """
    path = model_dir / "config.json"
    config = _read(path)
    own = config.get("speech") or {}
    chosen = configured.model_dump(exclude_unset=True) if configured else {}
    speech = _parse(SpeechConfig, {"name": default_name(model_dir), **chosen, **own}, path, key="speech")
    if "name" in chosen:
        speech = speech.model_copy(update={"name": chosen["name"]})
    for name, value in chosen.items():
        if (here := getattr(speech, name)) != value:
            raise ConfigurationError(
                f"CARILLON_SPEECH__{name.upper()}={value!r} contradicts {path}, which says {here!r}; unset it, or "
                "correct the checkpoint"
            )
    codec_path = codec_dir / "config.json"
    codec = _parse(CodecConfig, _read(codec_path), codec_path)
    layout = TokenLayout(
        speech=speech,
        codebook_size=codec.codebook_size,
        samples_per_frame=math.prod(codec.encoder_rates) * max(codec.vq_strides),
        sample_rate_hz=codec.sampling_rate,
    )
    _check_vocabulary(layout, config.get("vocab_size"), path)
    return layout


def default_name(model_dir: Path) -> str:
    """The name of a checkpoint that does not have one: of its hub id, as the hub's cache has it, or its directory's."""
    repository = next((part for part in model_dir.absolute().parts if part.startswith("models--")), None)
    name = repository.rpartition("--")[2] if repository else model_dir.absolute().name
    return re.sub(r"[^\w.:+-]", "-", name).lstrip("_.:+-")[:128] or "model"


def _check_vocabulary(layout: TokenLayout, size: Any, path: Path) -> None:
    """A checkpoint without audio tokens, or another codec's, would be found out by noise or an engine that dies."""
    if not isinstance(size, int):
        return
    _, last = layout.band(TOKENS_PER_FRAME - 1)
    if last > size:
        raise ConfigurationError(
            f"{path}: vocab_size is {size}, and the codec's codes need {last} tokens from {layout.band(0)[0]} on: "
            "this is no speech model, or the codec is another's; look at CARILLON_MODEL, CARILLON_CODEC and "
            "CARILLON_SPEECH__AUDIO_TOKEN_BASE"
        )
    if outside := sorted(token for token in layout.speech.control_ids if not 0 <= token < size):
        raise ConfigurationError(f"{path}: vocab_size is {size}, and its control tokens {outside} lie outside")


def _read(path: Path) -> dict[str, Any]:
    try:
        fields = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ConfigurationError(
            f"{path} does not exist; set CARILLON_MODEL and CARILLON_CODEC to checkpoint directories or hub ids"
        ) from None
    except json.JSONDecodeError as error:
        raise ConfigurationError(f"{path} is no JSON (line {error.lineno}); download it again") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path} is no JSON; download it again") from None
    if not isinstance(fields, dict):
        raise ConfigurationError(f"{path} is no JSON object; download it again")
    return fields


def _parse(kind: type[_Config], fields: Mapping[str, Any], path: Path, *, key: str = "") -> _Config:
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        place, reason = first_fault(error)
        place = ".".join(part for part in (key, place) if part)
        raise ConfigurationError(f"{path}: {place}: {reason}" if place else f"{path}: {reason}") from None
