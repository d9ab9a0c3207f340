"""A clone tried without a fleet: what it is trained as, and what is heard of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from app.speech.token_layout import read_layout
from training.standin.card import CHECKPOINT
from training.standin.quality import Voice
from training.standin.trial import described, hear, prepare


def test_a_try_is_the_models_own_recipe_but_for_what_it_names() -> None:
    layout = read_layout(CHECKPOINT / "model", CHECKPOINT / "codec")
    run = described(CHECKPOINT, {"epochs": 2}, threads=1)
    assert run.train.epochs == 2
    own = described(CHECKPOINT, {}, threads=1).train
    assert own.model_copy(update={"epochs": 2}) == run.train
    assert own.learning_rate == layout.speech.recipe["learning_rate"]


def test_recordings_that_were_prepared_are_not_prepared_again(tmp_path: Path) -> None:
    (tmp_path / "dataset.npz").write_bytes(b"prepared before")
    prepare(tmp_path, described(CHECKPOINT, {}, threads=1))
    assert [path.name for path in tmp_path.iterdir()] == ["dataset.npz"]


@pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not here: apt-get install flite")
def test_a_voice_is_heard_beside_its_speaker_and_the_speaker_behind_the_codec() -> None:
    voice = Voice.loaded(CHECKPOINT / "model", CHECKPOINT / "codec")
    figures = hear(voice, "wren", ["The kettle is on the stove.", "We walked home in the rain."])
    assert figures["word_error_rate_speaker"] < figures["word_error_rate_codec"] + 0.01
    assert figures["ended_share"] == 1
    assert figures["head_silence_ms_p50"] > 400
