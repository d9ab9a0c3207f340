"""The recipe of a clone: how recordings are cut, how the LoRA is trained, and what it must pass to be published."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from app.errors import InvalidRequest
from app.speech.field_errors import first_fault
from app.speech.voices import Frozen


class PrepareConfig(Frozen):
    """What recordings must be like and what is done to them. The sources of the numbers are Emilia's, Azure's and
    GPT-SoVITS' pipelines, and our own measurements of onset detectors."""

    min_source_rate_hz: int = Field(default=16_000, ge=8_000, description="A lower rate is rejected.")
    good_source_rate_hz: int = Field(default=24_000, ge=8_000, description="A lower rate is pointed out.")
    max_clipped_share: float = Field(default=0.001, ge=0, le=1, description="Of the samples at full scale.")
    high_pass_hz: float = Field(default=48.0, ge=0, le=300, description="What lies below is filtered out.")
    min_snr_db: float = Field(default=20.0, description="Below it a recording is rejected.")
    good_snr_db: float = Field(default=30.0, description="Below it a recording is pointed out.")
    split_pause_s: float = Field(default=0.3, gt=0, description="Segments end at pauses at least so long.")
    min_clip_s: float = Field(default=1.5, gt=0, description="Speech in a clip; a shorter segment is left out.")
    wanted_clip_s: tuple[float, float] = Field(default=(3.0, 15.0), description="Segments are joined and cut to this.")
    max_clip_s: float = Field(default=20.0, gt=0, description="A segment without a pause may be so long.")
    min_word_agreement: float = Field(default=0.85, ge=0, le=1, description="Of a given transcript with a heard one.")
    loudness_lufs: float | None = Field(
        default=None,
        ge=-40,
        le=-10,
        description="None: as loud as the model's own voices, so that an adapter need not learn to be louder.",
    )
    max_true_peak_dbtp: float = Field(default=-3.0, le=0, description="Of a clip.")
    max_gain_db: float = Field(default=12.0, ge=0, description="More than this is too quiet, or too loud, to use.")
    head_s: float = Field(default=0.08, ge=0.02, le=0.5, description="Room tone kept before the speech.")
    tail_s: float = Field(default=0.2, ge=0, le=1, description="Room tone kept after the speech.")
    max_pause_s: float = Field(default=0.6, ge=0.1, description="Longer pauses inside a clip are shortened to this.")
    deduplicate_frames: bool = Field(
        default=False, description="Drop a frame whose first code repeats, as Orpheus's own recipe does."
    )
    min_usable_s: float = Field(default=600.0, ge=0, description="Less usable speech ends the job before training.")
    min_clips: int = Field(default=100, ge=1, description="Fewer usable clips end the job before training.")
    recommended_usable_s: float = Field(default=1800.0, ge=0, description="Less usable speech is pointed out.")

    @model_validator(mode="after")
    def _bounds_are_in_order(self) -> Self:
        shortest, longest = self.wanted_clip_s
        _in_order(min_source_rate_hz=self.min_source_rate_hz, good_source_rate_hz=self.good_source_rate_hz)
        _in_order(min_snr_db=self.min_snr_db, good_snr_db=self.good_snr_db)
        _in_order(
            min_clip_s=self.min_clip_s,
            **{"wanted_clip_s[0]": shortest, "wanted_clip_s[1]": longest},
            max_clip_s=self.max_clip_s,
        )
        return self


class TrainConfig(Frozen):
    """Every hyper-parameter of a LoRA. The defaults are the recipe of the talk, with the learning rate of our sweep."""

    rank: Literal[8, 16, 32, 64, 128] = Field(default=16, description="Of the LoRA's matrices.")
    alpha: int = Field(default=32, ge=1, le=512, description="The LoRA is scaled by alpha / rank.")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Of the LoRA's inputs.")
    learning_rate: float = Field(default=2e-4, gt=0, le=1e-1, description="At its highest.")
    warmup_share: float = Field(default=0.05, ge=0, le=0.5, description="Of the steps, with a rising learning rate.")
    epochs: int = Field(default=5, ge=1, le=5, description="At most; the best one is kept.")
    batch_clips: int = Field(default=8, ge=1, le=256, description="Clips of one optimiser step.")
    micro_batch_tokens: int = Field(default=8192, ge=512, description="Padded tokens that go through at once.")
    max_tokens: int = Field(default=2048, ge=256, le=8192, description="A longer clip is left out.")
    max_grad_norm: float = Field(default=1.0, gt=0, description="A longer gradient is clipped to this.")
    held_out_share: float = Field(default=0.1, gt=0, lt=0.5, description="Of the clips, to measure the loss with.")
    patience: int = Field(default=1, ge=1, description="Epochs without a better held-out loss before stopping early.")
    loss: Literal["codes", "all"] = Field(
        default="codes",
        description="codes: audio only, among the codes that the band mask allows, as it is served; "
        "all: text too, over the whole vocabulary, as Orpheus's own recipe.",
    )
    corruption: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Of a clip's codes, at most so many are heard wrong while training; a small model that is fed true "
        "codes only learns to follow the sound instead of the text.",
    )
    gradient_checkpointing: bool | None = Field(default=None, description="None: on a GPU only.")
    checkpoint_steps: int = Field(default=10, ge=1, le=1000, description="Steps between two checkpoints.")
    seed: int = Field(default=0, ge=0, description="Of the order of clips, and of all else that is random.")


class GateConfig(Frozen):
    """What an adapter must reach, speaking unseen prompts through the engine, before it is published."""

    prompts: int = Field(default=20, ge=4, le=100, description="Spoken, none of them seen in training.")
    max_head_silence_p50_ms: float = Field(default=120.0, gt=0, description="Before the first sound: the median.")
    max_head_silence_p95_ms: float = Field(
        default=250.0, gt=0, description="Before the first sound: the 95th percentile."
    )
    min_ended_share: float = Field(default=0.95, ge=0, le=1, description="Of the prompts, ended by the model itself.")
    duration_ratio: tuple[float, float] = Field(default=(0.5, 2.0), description="Median, of the speaker's own pace.")
    max_silence_run_s: float = Field(default=1.0, gt=0, description="The longest silence inside the speech.")
    require_closeness: bool = Field(default=True, description="To be nearer to the speaker than any base voice is.")
    max_word_error_rate: float = Field(
        default=0.15,
        ge=0,
        le=1,
        description="Above the base voice's own on the same prompts, where both are heard.",
    )

    @model_validator(mode="after")
    def _bounds_are_in_order(self) -> Self:
        least, most = self.duration_ratio
        _in_order(
            max_head_silence_p50_ms=self.max_head_silence_p50_ms, max_head_silence_p95_ms=self.max_head_silence_p95_ms
        )
        _in_order(**{"duration_ratio[0]": least, "duration_ratio[1]": most})
        return self


def _in_order(**values: float) -> None:
    """Raises ValueError, naming both, where a value is less than the one before it."""
    for (name, value), (next_name, next_value) in pairwise(values.items()):
        if value > next_value:
            raise ValueError(f"{name} ({value:g}) is more than {next_name} ({next_value:g}); change one of them")


class CloneConfig(Frozen):
    """The configuration of one job: the operator's, with the client's overrides. It is saved beside the adapter.

    What neither has set is left to the model, which may have a recipe of its own, and then to the defaults here.
    """

    prepare: PrepareConfig = PrepareConfig()
    train: TrainConfig = TrainConfig()
    gate: GateConfig = GateConfig()

    def overridden(self, overrides: Mapping[str, Any]) -> Self:
        """This configuration with some fields replaced: `{"train": {"epochs": 3}}`.

        Raises InvalidRequest naming the field that is wrong or does not exist.
        """
        groups = type(self).model_fields
        fields = self.model_dump(exclude_unset=True)
        for group, values in overrides.items():
            if group not in groups or not isinstance(values, Mapping):
                raise InvalidRequest(
                    f"overrides.{group[:64]}: give an object under one of {', '.join(groups)}", param="overrides"
                )
            fields[group] = fields.get(group, {}) | values
        try:
            return type(self).model_validate(fields)
        except ValidationError as error:
            place, reason = first_fault(error)
            raise InvalidRequest(f"overrides.{place}: {reason}", param=f"overrides.{place}") from None
