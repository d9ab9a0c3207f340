"""The committed stand-in checkpoint: small, complete, and laid out as its configuration says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors import safe_open
from snac import SNAC
from transformers import AutoTokenizer

from training.standin.base import BUILT_IN_VOICES, HELD_OUT_VOICES
from training.standin.card import CHECKPOINT, SIZE_LIMIT_BYTES
from training.standin.phonemes import reading_tokenizer
from training.standin.speech import FRAME_SAMPLES, SAMPLE_RATE_HZ
from training.standin.spelling import stored_rules
from training.standin.tags import TAGS
from training.standin.tokens import Tokens


@pytest.fixture(scope="module")
def config() -> dict:
    return json.loads((CHECKPOINT / "model/config.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def codec() -> SNAC:
    return SNAC.from_pretrained(str(CHECKPOINT / "codec"))


def test_the_directory_is_at_most_thirty_megabytes() -> None:
    assert sum(path.stat().st_size for path in CHECKPOINT.rglob("*") if path.is_file()) <= SIZE_LIMIT_BYTES


def test_the_model_card_says_it_is_a_stand_in_and_what_was_measured() -> None:
    card = (CHECKPOINT / "README.md").read_text(encoding="utf-8")
    figures = json.loads((CHECKPOINT / "quality.json").read_text(encoding="utf-8"))
    assert "not a product voice" in card
    for measured in figures["voices"].values():
        assert f"{measured['word_error_rate_model']:.2f}" in card
        assert f"{measured['codec_stoi']:.2f}" in card


def test_the_codec_has_orpheus_frames(codec: SNAC) -> None:
    assert codec.sampling_rate == SAMPLE_RATE_HZ
    assert codec.vq_strides == [4, 2, 1]
    assert codec.hop_length * codec.vq_strides[0] == FRAME_SAMPLES


def test_the_bands_end_where_the_vocabulary_ends(config: dict, codec: SNAC) -> None:
    tokens = Tokens(codec.codebook_size)
    assert config["speech"] == tokens.speech_settings(BUILT_IN_VOICES)
    assert config["vocab_size"] == len(tokens) == tokens.audio_base + 7 * codec.codebook_size


def test_the_model_can_hold_a_chunk_of_three_hundred_characters(config: dict) -> None:
    longest_speech_s = 40
    assert config["max_position_embeddings"] >= longest_speech_s * SAMPLE_RATE_HZ // FRAME_SAMPLES * 7 + 300


def test_the_weights_are_half_precision_and_of_the_vocabulary(config: dict) -> None:
    with safe_open(str(CHECKPOINT / "model/model.safetensors"), framework="np") as weights:
        embedding = weights.get_slice("model.embed_tokens.weight")
        assert embedding.get_dtype() == "BF16"
        assert embedding.get_shape() == [config["vocab_size"], config["hidden_size"]]
        projections = {name.rsplit(".", 2)[1] for name in weights.keys() if "proj" in name}  # noqa: SIM118
    assert projections == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def test_the_committed_tokenizer_is_the_one_of_the_recipe(codec: SNAC) -> None:
    tokenizer = AutoTokenizer.from_pretrained(CHECKPOINT / "model")
    made = reading_tokenizer(stored_rules(), codec.codebook_size)
    text = f"wren: Hello, unknowable world! {' '.join(TAGS)} 42"
    assert tokenizer(text)["input_ids"] == made(text)["input_ids"]


def test_no_held_out_voice_is_offered(config: dict) -> None:
    assert not set(HELD_OUT_VOICES) & set(config["speech"]["voices"])


def test_nothing_in_the_directory_is_a_stray_file() -> None:
    found = {str(path.relative_to(CHECKPOINT)) for path in CHECKPOINT.rglob("*") if path.is_file()}
    weights_and_words = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"}
    expected = {
        "README.md",
        "quality.json",
        "codec/config.json",
        "codec/pytorch_model.bin",
        "model/tokenizer_config.json",
    }
    assert found == expected | {str(Path("model") / name) for name in weights_and_words}
