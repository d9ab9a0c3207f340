"""Puts a trained adapter into the object store: `python -m training.publish RUN_DIR`.

RUN_DIR/adapter/ goes below the run's `adapter_prefix`; `done` has what AdapterVersion keeps: `uri`, `sha256`, `rank`.
The manifest is uploaded last: where there is one, all it names is there. Doing it again changes nothing. A version and
a voice that points to it are the catalogue's matter.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from app.errors import ConfigurationError, StoreUnavailable
from app.platform.object_store import ObjectStore
from app.platform.settings import load_settings
from training import adapter
from training.stage_runner import Emit, main, read_run

MANIFEST_FILE = "manifest.json"
PATIENCE_S = 60.0
"""How long the store may be away before the stage fails, to be tried again."""

CALL_TIMEOUT_S = 20.0
PAUSES_S = (0.5, 1.0, 2.0, 4.0)  # then every four seconds

T = TypeVar("T")

log = logging.getLogger(__name__)


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


def patiently(
    work: Callable[[], T],
    *,
    patience_s: float = PATIENCE_S,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """`work`, retried while the store is away, for at most `patience_s`. Raises its last StoreUnavailable."""
    give_up_at = clock() + patience_s
    failures = 0
    while True:
        try:
            return work()
        except StoreUnavailable as error:
            pause_s = PAUSES_S[min(failures, len(PAUSES_S) - 1)]
            failures += 1
            if clock() + pause_s > give_up_at:
                raise
            log.warning("store away", extra={"failures": failures, "error": error.message})
        sleep(pause_s)


def work(directory: Path, emit: Emit) -> dict[str, Any]:
    """The stage."""
    run = read_run(directory)
    if not run.adapter_prefix:
        raise ConfigurationError("run.json has no adapter_prefix; name the place in the object store")
    with closing(ObjectStore(load_settings().store, timeout_s=CALL_TIMEOUT_S, attempts=1)) as store:
        return asdict(patiently(lambda: publish(directory / "adapter", run.adapter_prefix, store)))


if __name__ == "__main__":
    sys.exit(main(work))
