"""Checkpoints by directory and by hub id; the hub is on this machine, and the process that fetches is the real one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from app.errors import ConfigurationError
from app.platform.model_files import fetch, fingerprint, from_hub, locate, model_size
from app.platform.settings import STAND_IN
from tests.support.hub import Hub, running_hub

pytestmark = pytest.mark.anyio

MODEL = {
    "config.json": b"{}",
    "tokenizer.json": b'{"version": "1.0"}',
    "model-00001-of-00002.safetensors": b"w" * 5000,
    "model.safetensors.index.json": b'{"weight_map": {}}',
    "optimizer.bin": b"o" * 9000,
    "README.md": b"# Orpheus",
    "checkpoint-100/model.safetensors": b"x" * 7000,
    "consolidated.safetensors": b"y" * 6000,
}
CODEC = {"config.json": b"{}", "pytorch_model.bin": b"c" * 300, "model.safetensors": b"c" * 300}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running_hub(
        {"lab/voice": MODEL, "lab/snac": CODEC, "lab/gated": MODEL}, gated=frozenset({"lab/gated"})
    ) as hub:
        for name in (
            "HF_TOKEN",
            "HUGGING_FACE_HUB_TOKEN",
            "HF_HUB_CACHE",
            "HF_HUB_OFFLINE",
            "http_proxy",
            "HTTP_PROXY",
        ):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
        yield hub


def files(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if not path.is_dir()}


async def test_a_model_is_fetched_without_what_is_not_needed_and_tells_how_far_it_is(hub: Hub) -> None:
    told: list[str] = []

    directory = await fetch("lab/voice", variable="CARILLON_MODEL", progress=told.append)

    assert files(directory) == {
        "config.json",
        "tokenizer.json",
        "model-00001-of-00002.safetensors",
        "model.safetensors.index.json",
    }
    assert set(hub.fetched) == files(directory)
    assert told[0].startswith("fetching lab/voice: 0.0 of ")


async def test_a_codec_is_two_files_and_is_fetched_once(hub: Hub) -> None:
    first = await fetch("lab/snac", variable="CARILLON_CODEC")
    again = await fetch("lab/snac", variable="CARILLON_CODEC")
    assert first == again
    assert sorted(hub.fetched) == sorted(files(first)) == ["config.json", "pytorch_model.bin"]


async def test_a_model_with_terms_says_where_to_accept_them(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match=rf"accept its terms at {hub.url}/lab/gated .*HF_TOKEN=hf_"):
        await fetch("lab/gated", variable="CARILLON_MODEL")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert (await fetch("lab/gated", variable="CARILLON_MODEL")).is_dir()


async def test_a_name_that_the_hub_does_not_know_is_said(hub: Hub) -> None:
    with pytest.raises(ConfigurationError, match=r"CARILLON_MODEL='lab/typo' does not exist, or is private.*HF_TOKEN"):
        await fetch("lab/typo", variable="CARILLON_MODEL")


def test_a_hub_that_does_not_answer_is_said(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(ConfigurationError, match=r"CARILLON_MODEL='lab/voice'.*the network"):
        locate("lab/voice", variable="CARILLON_MODEL")


def test_a_directory_is_taken_as_it_stands(tmp_path: Path) -> None:
    assert locate(str(tmp_path), variable="CARILLON_MODEL") == tmp_path
    assert not from_hub(str(tmp_path))
    assert from_hub("canopylabs/orpheus-3b-0.1-ft")


@pytest.mark.parametrize("reference", ["orpheus", "./no/such", "/no/such", "a/b/c"])
def test_what_is_neither_is_refused_by_the_settings_name(reference: str) -> None:
    with pytest.raises(ConfigurationError, match=r"CARILLON_MODEL=.* is no directory"):
        locate(reference, variable="CARILLON_MODEL")


def test_a_model_is_measured_by_the_heads_of_its_files(tmp_path: Path) -> None:
    for number in (1, 2):
        save_file({"weight": np.zeros((3, 5)), "bias": np.zeros(5)}, tmp_path / f"model-{number}.safetensors")
    config = {"num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 4, "hidden_size": 64}
    (tmp_path / "config.json").write_text(json.dumps(config))
    size = model_size(tmp_path)
    assert size.parameters == 2 * (15 + 5)
    assert size.kv_bytes_per_token == 2 * 2 * 2 * 4 * 8, "keys and values, two bytes each, of every layer and head"


def test_a_model_that_cannot_be_measured_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be measured"):
        model_size(tmp_path)


def test_a_finetune_has_another_fingerprint_and_a_copy_the_same(tmp_path: Path) -> None:
    model, codec = STAND_IN / "model", STAND_IN / "codec"
    copy, finetune = (Path(shutil.copytree(model, tmp_path / name)) for name in ("copy", "finetune"))
    weights = finetune / "model.safetensors"
    data = bytearray(weights.read_bytes())
    middle = slice(len(data) // 4, len(data) // 2)
    data[middle] = bytes(byte ^ 1 for byte in data[middle])
    weights.write_bytes(data)
    assert fingerprint(copy, codec) == fingerprint(model, codec) != fingerprint(finetune, codec)
    assert fingerprint(copy, codec) != fingerprint(copy, codec, codec_noise=False)
