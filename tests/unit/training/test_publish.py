"""Publishing into the embedded object store."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from app.errors import AdapterUnavailable, StoreUnavailable
from app.platform.object_store import ObjectStore
from app.platform.settings import StoreSettings
from app.speech.token_layout import LORA_MODULES
from training.adapter import CONFIG_FILE, WEIGHTS_FILE
from training.publish import MANIFEST_FILE, publish

PREFIX = "voices/abcdefghijkl/jobs/j1/attempt-2/adapter"


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """The smallest adapter that could be served."""
    directory = tmp_path / "adapter"
    directory.mkdir()
    config = {"peft_type": "LORA", "r": 8, "bias": "none", "target_modules": list(LORA_MODULES)}
    (directory / CONFIG_FILE).write_text(json.dumps(config))
    module = "base_model.model.model.layers.0.self_attn.q_proj"
    weights = {f"{module}.lora_A.weight": (8, 4), f"{module}.lora_B.weight": (4, 8)}
    save_file({name: np.ones(shape, np.float32) for name, shape in weights.items()}, directory / WEIGHTS_FILE)
    return directory


def test_a_published_adapter_can_be_fetched_by_its_address_and_hashes(
    adapter: Path, object_store: ObjectStore, tmp_path: Path
) -> None:
    published = publish(adapter, PREFIX, object_store)
    assert published.rank == 8
    assert set(published.sha256) == {CONFIG_FILE, WEIGHTS_FILE}
    for name, sha256 in published.sha256.items():
        fetched = tmp_path / "fetched" / name
        object_store.fetch(published.uri, name, fetched)
        assert hashlib.sha256(fetched.read_bytes()).hexdigest() == sha256


def test_the_manifest_names_every_file_with_its_hash_and_size(adapter: Path, object_store: ObjectStore) -> None:
    published = publish(adapter, PREFIX, object_store)
    manifest = json.loads(object_store.get(f"{PREFIX}/{MANIFEST_FILE}"))
    assert manifest["rank"] == 8
    assert {name: entry["sha256"] for name, entry in manifest["files"].items()} == published.sha256
    assert manifest["files"][WEIGHTS_FILE]["size_bytes"] == (adapter / WEIGHTS_FILE).stat().st_size


def test_publishing_twice_changes_nothing(adapter: Path, object_store: ObjectStore) -> None:
    first = publish(adapter, PREFIX, object_store)
    manifest = object_store.get(f"{PREFIX}/{MANIFEST_FILE}")
    assert publish(adapter, PREFIX, object_store) == first
    assert object_store.get(f"{PREFIX}/{MANIFEST_FILE}") == manifest
    assert len(list(object_store.keys(PREFIX))) == 3


def test_an_adapter_that_vllm_would_refuse_leaves_nothing_in_the_store(
    adapter: Path, object_store: ObjectStore
) -> None:
    config = json.loads((adapter / CONFIG_FILE).read_text())
    (adapter / CONFIG_FILE).write_text(json.dumps(config | {"modules_to_save": ["lm_head"]}))
    with pytest.raises(AdapterUnavailable, match="modules_to_save"):
        publish(adapter, PREFIX, object_store)
    assert not list(object_store.keys(PREFIX))


class FailingStore(ObjectStore):
    """Loses its server when the manifest is due."""

    def put(self, key: str, data: bytes) -> None:
        raise StoreUnavailable("gone")


def test_an_upload_that_broke_off_has_no_manifest(
    adapter: Path, rclone: StoreSettings, object_store: ObjectStore
) -> None:
    failing = FailingStore(rclone.model_copy(update={"bucket": object_store.bucket}))
    with pytest.raises(StoreUnavailable):
        publish(adapter, PREFIX, failing)
    failing.close()
    assert sorted(object_store.keys(PREFIX)) == [f"{PREFIX}/{CONFIG_FILE}", f"{PREFIX}/{WEIGHTS_FILE}"]
