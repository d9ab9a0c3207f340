"""Where a voice model's files are: a local directory as it stands, or a hub id fetched into the hub's own cache.

Only what is needed is fetched, by a process of its own (`python -m app.platform.model_files VARIABLE ID`): a download
of many gigabytes must end at once with its caller, and the hub's library joins its threads at exit. It tells
how far it is, a JSON object a line. This module knows nothing of what the files mean, but for what a model weighs;
`app.speech.token_layout.read_layout` does.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import logging
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from app.errors import CarillonError, ConfigurationError
from app.platform import reaper
from app.platform.profiles import ModelSize

FILES = {
    "CARILLON_MODEL": ["*.json", "*.safetensors", "tokenizer.model"],
    "CARILLON_CODEC": ["config.json", "pytorch_model.bin"],
}
"""By the setting that holds the reference. A model's `*.bin` may be a trainer's state."""

NOT_NEEDED = ["*/*", "consolidated*"]
"""What lies in directories of a repository, and another form of the same weights."""

TELL_EVERY_S = 10.0
_PIECES, _PIECE_BYTES = 64, 16 * 1024

Progress = Callable[[str], None]

log = logging.getLogger(__name__)


def to_log(progress: str) -> None:
    """For a caller without a progress display."""
    log.info("fetching a checkpoint", extra={"progress": progress})


def from_hub(reference: str) -> bool:
    """Whether the reference is a hub id (`owner/name`), and no directory."""
    path = Path(reference).expanduser()
    return not (path.is_dir() or path.is_absolute() or reference.count("/") != 1 or reference.startswith("."))


def locate(reference: str, *, variable: str, progress: Progress = to_log) -> Path:
    """As `fetch`, for callers without an event loop."""
    return _directory(reference, variable) or asyncio.run(fetch(reference, variable=variable, progress=progress))


async def fetch(reference: str, *, variable: str, progress: Progress = to_log) -> Path:
    """The directory of a checkpoint given as a path or as a hub id, fetched from the hub if it must be.

    `progress` hears how far a download is. Raises ConfigurationError naming `variable`, the setting that holds the
    reference, when it is neither, or cannot be had. Cancelled it stops the download, which goes on the next time.
    """
    if directory := _directory(reference, variable):
        return directory
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, reaper.__file__, "exec", str(os.getpid())),
        *(sys.executable, "-P", "-m", "app.platform.model_files", variable, reference),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "HF_HUB_DISABLE_PROGRESS_BARS": "1"},
    )
    assert process.stdout
    said: dict[str, str] = {}
    try:
        async for line in process.stdout:
            event = json.loads(line)
            said |= event
            if "told" in event:
                progress(event["told"])
        await process.wait()
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    if "path" in said:
        return Path(said["path"])
    raise ConfigurationError(said.get("error") or f"{variable}={reference!r}: the download ended without a word")


def _directory(reference: str, variable: str) -> Path | None:
    """The reference if it is a directory here, None if it is a hub id."""
    path = Path(reference).expanduser()
    if path.is_dir():
        return path
    if not from_hub(reference):
        raise ConfigurationError(f"{variable}={reference!r} is no directory; give a checkpoint directory or a hub id")
    return None


def model_size(directory: Path) -> ModelSize:
    """What the language model in `directory` weighs, from the heads of its files. Raises ConfigurationError."""
    try:
        config: dict[str, Any] = json.loads((directory / "config.json").read_text("utf-8"))
        heads = config["num_attention_heads"]
        head_size = config.get("head_dim") or config["hidden_size"] // heads
        per_token = 2 * 2 * config["num_hidden_layers"] * config.get("num_key_value_heads", heads) * head_size
        return ModelSize(sum(map(_parameters, sorted(directory.glob("*.safetensors")))), per_token)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f"the model in {directory} cannot be measured ({type(error).__name__}: {error}); fetch it again"
        ) from None


def _parameters(path: Path) -> int:
    """Of a safetensors file: its head is a length of 8 bytes and so much JSON."""
    with path.open("rb") as file:
        head = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    total = 0
    for name, tensor in head.items():
        if name != "__metadata__":
            size = 1
            for length in tensor["shape"]:
                size *= length
            total += size
    return total


def fingerprint(model_dir: Path, codec_dir: Path, *, codec_noise: bool = True) -> str:
    """Tells a voice model from any other, wherever it lies: of its configurations, and of pieces of its weights.

    A finetune differs from its base in every weight that it trained, so pieces will do, and gigabytes are not read. One
    that is decoded without `codec_noise` sounds otherwise, and is another.
    """
    digest = hashlib.sha256()
    for directory, weights in ((model_dir, "*.safetensors"), (codec_dir, "pytorch_model.bin")):
        for path in [directory / "config.json", *sorted(directory.glob(weights))]:
            size = path.stat().st_size
            digest.update(f"{path.name} {size}\n".encode())
            with path.open("rb") as file:
                for piece in range(_PIECES):
                    file.seek(size * piece // _PIECES)
                    digest.update(file.read(_PIECE_BYTES))
    if not codec_noise:
        digest.update(b"without noise")
    return digest.hexdigest()[:16]


# The process that fetches.


def main() -> int:
    variable, reference = sys.argv[1:]
    try:
        say(path=str(_download(reference, variable)))
    except CarillonError as error:
        say(error=error.message)
        return 1
    return 0


def say(**fields: str) -> None:
    print(json.dumps(fields), flush=True)


def _download(reference: str, variable: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        DryRunError,
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    what: dict[str, Any] = {"allow_patterns": FILES[variable], "ignore_patterns": NOT_NEEDED}
    try:
        with suppress(LocalEntryNotFoundError, DryRunError):  # what is in the cache may be all; else it fails below
            missing = [file for file in snapshot_download(reference, **what, dry_run=True) if file.will_download]
            if missing:
                total = sum(file.file_size or 0 for file in missing)
                blobs = Path(missing[0].local_path).parents[2] / "blobs"
                threading.Thread(target=_tell_progress, args=(reference, blobs, total), daemon=True).start()
        return Path(snapshot_download(reference, **what))
    except GatedRepoError as error:
        raise ConfigurationError(_without_access(reference, variable, "is gated")) from error
    except RepositoryNotFoundError as error:
        raise ConfigurationError(_without_access(reference, variable, "does not exist, or is private")) from error
    except (HfHubHTTPError, OSError, ValueError) as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = "make room, or set HF_HOME to a larger disk" if full else "check the name, the network and HF_TOKEN"
        raise ConfigurationError(
            f"{variable}={reference!r} is no directory here and could not be fetched from the hub "
            f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}); {remedy}"
        ) from error


def _without_access(reference: str, variable: str, why: str) -> str:
    from huggingface_hub import constants, get_token

    hub, token = constants.ENDPOINT, "with the account of HF_TOKEN" if get_token() else "with your account"
    return (
        f"{variable}={reference!r} {why}: accept its terms at {hub}/{reference} {token}, make a token that may read at "
        f"{hub}/settings/tokens, and start again with HF_TOKEN=hf_…"
    )


def _tell_progress(reference: str, blobs: Path, total: int) -> None:
    """Say how far the download is: at once, and every few seconds. What an earlier one left counts."""
    before = _size(blobs, whole=True)
    while True:
        done = min(total, max(0, _size(blobs) - before))
        scale, unit = (1e9, "GB") if total >= 1e9 else (1e6, "MB")
        say(told=f"fetching {reference}: {done / scale:.1f} of {total / scale:.1f} {unit}")
        threading.Event().wait(TELL_EVERY_S)


def _size(blobs: Path, *, whole: bool = False) -> int:
    """Of the files in the hub's cache; `whole`: without those that are not whole yet."""
    total = 0
    with suppress(OSError):
        for path in blobs.iterdir():
            with suppress(OSError):
                if not (whole and path.name.endswith(".incomplete")):
                    total += path.stat().st_size
    return total


if __name__ == "__main__":
    sys.exit(main())
