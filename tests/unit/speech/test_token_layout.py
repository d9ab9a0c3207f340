"""The layout of a checkpoint: what it says, what is configured, and what does not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from app.errors import ConfigurationError
from app.speech.token_layout import SpeechConfig, read_layout


def checkpoint(place: Path, *, codebook_size: int = 4096, **config: Any) -> tuple[Path, Path]:
    """A model's directory and a codec's, without weights."""
    model, codec = place / "mine", place / "codec"
    for directory, fields in ((model, config), (codec, {"codebook_size": codebook_size})):
        directory.mkdir(parents=True)
        (directory / "config.json").write_text(json.dumps(fields))
    return model, codec


def test_a_checkpoint_that_says_nothing_is_orpheus_by_the_name_of_its_directory(tmp_path: Path) -> None:
    speech = read_layout(*checkpoint(tmp_path, vocab_size=156_940)).speech
    assert (speech.name, speech.voices[0], speech.audio_token_base) == ("mine", "tara", 128_266)


def test_a_checkpoint_of_the_hub_has_its_name_there(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--canopylabs--orpheus-3b-0.1-ft" / "snapshots" / "4206a56e5a68"
    model, codec = checkpoint(tmp_path)
    snapshot.parent.mkdir(parents=True)
    model.rename(snapshot)
    assert read_layout(snapshot, codec).speech.name == "orpheus-3b-0.1-ft"


def test_what_a_checkpoint_does_not_say_can_be_configured(tmp_path: Path) -> None:
    configured = SpeechConfig.model_validate({"name": "german", "voices": "anna, max", "languages": ["de"], "tags": ""})
    speech = read_layout(*checkpoint(tmp_path), configured).speech
    assert (speech.name, speech.voices, speech.languages, speech.tags) == ("german", ("anna", "max"), ("de",), ())


def test_what_a_checkpoint_says_is_not_contradicted_in_silence(tmp_path: Path) -> None:
    files = checkpoint(tmp_path, speech={"name": "a", "voices": ["wren"]})
    assert read_layout(*files, SpeechConfig(voices=("wren",), languages=("de",))).speech.languages == ("de",)
    with pytest.raises(ConfigurationError, match=r"CARILLON_SPEECH__VOICES=.*anna.* contradicts .*wren"):
        read_layout(*files, SpeechConfig(voices=("anna",)))


def test_a_name_is_given_in_any_case_for_it_is_no_property_of_the_weights(tmp_path: Path) -> None:
    assert read_layout(*checkpoint(tmp_path, speech={"name": "a"}), SpeechConfig(name="b")).speech.name == "b"


def test_a_layout_that_was_read_can_be_sent_to_another_process(tmp_path: Path) -> None:
    files = checkpoint(tmp_path)
    read = read_layout(*files, SpeechConfig(voices=("anna",))).speech
    assert read_layout(*files, SpeechConfig.model_validate_json(read.model_dump_json())).speech == read


def test_a_vocabulary_without_room_for_the_codes_is_no_speech_model(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"vocab_size is 128256.* need 156938 tokens from 128266"):
        read_layout(*checkpoint(tmp_path, vocab_size=128_256))


def test_control_tokens_lie_in_the_vocabulary(tmp_path: Path) -> None:
    speech = {"audio_token_base": 100, "end_of_speech_id": 8}
    with pytest.raises(ConfigurationError, match=r"vocab_size is 200.* \[128000, 128009"):
        read_layout(*checkpoint(tmp_path, codebook_size=4, vocab_size=200, speech=speech))


@pytest.mark.parametrize("form", ["{text}", "{voice}{x}{text}", "{", "{voice}: hello"])
def test_a_prompt_needs_voice_and_text(tmp_path: Path, form: str) -> None:
    with pytest.raises(ConfigurationError, match="prompt_form"):
        read_layout(*checkpoint(tmp_path, speech={"prompt_form": form}))


def test_tokens_in_a_row_mean_what_each_means_at_its_place(tmp_path: Path) -> None:
    layout = read_layout(*checkpoint(tmp_path, codebook_size=512))
    codes = [number * 37 % 512 for number in range(20)]
    tokens = [layout.token(code, 5 + offset) for offset, code in enumerate(codes)]
    assert layout.codes(tokens, 5) == codes
    assert layout.codes([], 3) == []


def test_a_token_of_another_band_is_named_with_its_place(tmp_path: Path) -> None:
    layout = read_layout(*checkpoint(tmp_path, codebook_size=512))
    tokens = [layout.token(1, position) for position in range(7)]
    tokens[3] = layout.token(1, 4)
    with pytest.raises(ValueError, match=f"token {tokens[3]} at position 3 is outside its band"):
        layout.codes(tokens, 0)
