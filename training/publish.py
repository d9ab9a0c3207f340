"""Uploads a trained adapter to the object store: `python -m training.publish RUN_DIR`.

RUN_DIR/adapter/ goes below the run's `adapter_prefix`; `done` has what AdapterVersion keeps: `uri`, `sha256`, `rank`.
The manifest is uploaded last: where there is one, all it names is there. Doing it again changes nothing. A version and
a voice that points to it are the catalogue's matter.
"""

from __future__ import annotations

import json
import sys
from contextlib import closing
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from app.errors import ConfigurationError
from app.platform.object_store import ObjectStore
from app.platform.retry import retry_store_blocking
from app.platform.settings import load_settings
from training import adapter
from training.stage_runner import Emit, main, read_run

MANIFEST_FILE = "manifest.json"
PATIENCE_S = 60.0
"""How long the store may be away before the stage fails, to be tried again."""

CALL_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Published:
    """An adapter as `AdapterVersion` names it: each file's SHA-256, the manifest's left out."""

    uri: str
    sha256: dict[str, str]
    rank: int


def publish(directory: Path, prefix: str, store: ObjectStore) -> Published:
    """Upload the adapter in `directory` below `prefix`, its manifest last.

    Raises AdapterUnavailable for one that vLLM would refuse, StoreUnavailable.
    """
    adapter.check(directory)
    rank = int(json.loads((directory / adapter.CONFIG_FILE).read_text("utf-8"))["r"])
    hashes = store.upload_directory(directory, prefix)
    manifest = {
        "created_by": f"carillon {version('carillon')}",
        "rank": rank,
        "files": {
            name: {"sha256": sha256, "size_bytes": (directory / name).stat().st_size} for name, sha256 in hashes.items()
        },
    }
    store.put(f"{prefix.strip('/')}/{MANIFEST_FILE}", json.dumps(manifest, indent=2).encode() + b"\n")
    return Published(store.uri(prefix), hashes, rank)


def work(directory: Path, emit: Emit) -> dict[str, Any]:
    """The stage."""
    run = read_run(directory)
    if not run.adapter_prefix:
        raise ConfigurationError("run.json has no adapter_prefix; name the place in the object store")
    with closing(ObjectStore(load_settings().store, timeout_s=CALL_TIMEOUT_S, attempts=1)) as store:
        published = retry_store_blocking(
            lambda: publish(directory / "adapter", run.adapter_prefix, store), patience_s=PATIENCE_S
        )
    return asdict(published)


if __name__ == "__main__":
    sys.exit(main(work))
