"""Voice models with random weights: what a loader expects of a real one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors import safe_open

from app.bench.gpu.random_model import ORPHEUS, TINY, adapter_version, save_adapter, save_codec, save_model
from app.speech.prompts import PromptEncoder
from app.speech.token_layout import SpeechConfig, read_layout
from training import adapter
from workers.adapters import check_adapter
from workers.snac_stream import load_codec


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("random")
    save_model(directory / "model", TINY, device="cpu")
    save_codec(directory / "codec", TINY)
    save_adapter(directory / "adapter", directory / "model", device="cpu", seed=1)
    return directory


def test_the_default_shape_is_that_of_orpheus() -> None:
    orpheus = SpeechConfig().model_dump()
    ours = ORPHEUS.speech().model_dump()
    assert {name for name in orpheus if ours[name] != orpheus[name]} == {"name", "voices"}
    assert ORPHEUS.vocabulary == 156_940
    assert ORPHEUS.projections["k_proj"] == (1024, 3072)
    assert ORPHEUS.projections["down_proj"] == (3072, 8192)


def test_model_and_codec_fit_each_other_and_load(made: Path) -> None:
    layout = read_layout(made / "model", made / "codec")
    assert layout.speech.name == "random"
    assert load_codec(made / "codec").codebook_size == layout.codebook_size


def test_the_tokenizer_has_the_ids_of_the_layout_and_no_text_becomes_a_control(made: Path) -> None:
    from transformers import AutoTokenizer

    layout = read_layout(made / "model", made / "codec")
    tokenizer = AutoTokenizer.from_pretrained(str(made / "model"))
    assert len(tokenizer) == TINY.vocabulary
    assert tokenizer.convert_tokens_to_ids("<custom_token_10>") == layout.band(0)[0]
    assert tokenizer.convert_tokens_to_ids("<|eot_id|>") == layout.speech.end_of_text_id
    prompt = PromptEncoder(layout, tokenizer).prompt("tara", "Good morning <custom_token_3>.")
    body = prompt[2:-4]
    assert body
    assert max(body) < TINY.text_tokens


def test_an_adapter_is_one_that_workers_and_trainer_accept(made: Path) -> None:
    check_adapter(made / "adapter", max_rank=16)
    adapter.check(made / "adapter")
    version = adapter_version(made / "adapter", 7)
    assert (version.name, version.lora_id, len(version.sha256)) == ("voice7@1", 7, 2)


def test_every_weight_is_in_the_index(made: Path) -> None:
    index = json.loads((made / "model" / "model.safetensors.index.json").read_text())["weight_map"]
    with safe_open(made / "model" / index["model.norm.weight"], framework="pt") as file:
        assert set(file.keys()) == set(index)


def test_what_is_there_is_not_made_again(made: Path) -> None:
    before = (made / "model" / "config.json").stat().st_mtime_ns
    save_model(made / "model", ORPHEUS, device="cpu")
    assert (made / "model" / "config.json").stat().st_mtime_ns == before
