"""The configuration of a job: bounds that fit together, numbers that are numbers, thresholds nobody asked to change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from app.errors import InvalidRequest
from app.speech.recipe import CloneConfig, PrepareConfig
from app.voices.models import CloneKind, GateFigure, RunConfig
from training.prepare import LENIENT, config_of


@pytest.mark.parametrize(
    ("group", "values", "named"),
    [
        ("prepare", {"min_source_rate_hz": 32_000}, "min_source_rate_hz (32000) is more than good_source_rate_hz"),
        ("prepare", {"min_snr_db": 40}, "min_snr_db (40) is more than good_snr_db (30)"),
        ("prepare", {"min_clip_s": 4}, "min_clip_s (4) is more than wanted_clip_s[0] (3)"),
        ("prepare", {"wanted_clip_s": [9, 5]}, "wanted_clip_s[0] (9) is more than wanted_clip_s[1] (5)"),
        ("prepare", {"max_clip_s": 10}, "wanted_clip_s[1] (15) is more than max_clip_s (10)"),
        ("gate", {"duration_ratio": [2, 0.5]}, "duration_ratio[0] (2) is more than duration_ratio[1] (0.5)"),
        (
            "gate",
            {"max_head_silence_p50_ms": 300},
            "max_head_silence_p50_ms (300) is more than max_head_silence_p95_ms",
        ),
    ],
)
def test_bounds_in_the_wrong_order_are_refused_by_their_names(group: str, values: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        CloneConfig().overridden({group: values})
    assert named in refusal.value.message


def test_bounds_may_be_equal() -> None:
    config = CloneConfig().overridden({"prepare": {"min_clip_s": 3, "wanted_clip_s": [3, 3], "max_clip_s": 3}})
    assert config.prepare.wanted_clip_s == (3, 3)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_what_is_no_number_is_refused(number: float) -> None:
    with pytest.raises(InvalidRequest, match="finite"):
        CloneConfig().overridden({"prepare": {"min_snr_db": number}})
    with pytest.raises(ValidationError, match="finite"):
        GateFigure(name="closeness", measured=number, limit="", passed=None)


def run_with(kind: CloneKind, **prepare: float) -> RunConfig:
    here = Path()
    return RunConfig(kind=kind, prompt_name="slt", model_dir=here, codec_dir=here, prepare=PrepareConfig(**prepare))  # type: ignore[arg-type]


def test_a_models_own_renderings_are_accepted_as_noisy_as_they_are_unless_somebody_asked_for_better() -> None:
    usual = config_of(run_with(CloneKind.POLISH), -20.0)
    assert {name: getattr(usual, name) for name in LENIENT} == LENIENT
    strict = config_of(run_with(CloneKind.POLISH, min_snr_db=25.0), -20.0)
    assert (strict.min_snr_db, strict.max_gain_db) == (25.0, LENIENT["max_gain_db"])


def test_a_speakers_recordings_keep_the_thresholds() -> None:
    config = config_of(run_with(CloneKind.CLONE), -20.0)
    assert config == PrepareConfig(loudness_lufs=-20.0)
