from __future__ import annotations

import pytest

from app.errors import UnknownModel, UnknownVoice
from app.speech.voices import ModelCard, Voice
from app.voices.resolver import Roster

GERMAN = ModelCard(
    name="german", stand_in=False, languages=("de",), voices=("anna", "jana"), sample_rate_hz=24_000, tokens_per_s=82.0
)
ENGLISH = GERMAN.model_copy(update={"name": "english", "languages": ("en",), "voices": ("tara", "anna")})
MINE = Voice(id="v1", name="mine", model="english")
NAMESAKE = Voice(id="v2", name="tara", model="english")
ELSEWHERE = Voice(id="v3", name="far", model="french")


def roster() -> Roster:
    return Roster((GERMAN, ENGLISH), (MINE, NAMESAKE, ELSEWHERE))


def test_a_clone_is_found_by_its_id_and_by_its_name() -> None:
    assert roster().find("v1", None) == roster().find("mine", "english") == MINE


def test_a_clone_goes_before_a_built_in_voice_of_its_name() -> None:
    assert roster().find("tara", None) == NAMESAKE


def test_a_name_that_two_models_have_is_the_first_ones_unless_a_model_is_named() -> None:
    assert roster().find("anna", None).model == "german"
    assert roster().find("anna", "english") == Voice(id="anna", name="anna", model="english", language="en")


def test_a_voice_of_a_model_that_nobody_serves_does_not_exist() -> None:
    with pytest.raises(UnknownVoice):
        roster().find("far", None)
    with pytest.raises(UnknownModel, match="english, german"):
        roster().find("far", "french")


def test_a_misspelt_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownVoice, match="the nearest are: jana"):
        roster().find("jama", "german")
