"""Where a voice model's files are: a local directory as it stands, or a hub id fetched into the hub's own cache.

It knows nothing of what the files mean; `app.core.orpheus.read_layout` does.
"""

from __future__ import annotations

from pathlib import Path

from app.core.errors import ConfigurationError

_WANTED = ["*.json", "*.safetensors", "*.bin", "*.model", "*.txt"]


def locate(reference: str, *, variable: str) -> Path:
    """The directory of a checkpoint given as a path or as a hub id (`owner/name`).

    Raises ConfigurationError naming `variable`, the setting that holds the reference, when it is neither.
    """
    path = Path(reference).expanduser()
    if path.is_dir():
        return path
    if path.is_absolute() or reference.count("/") != 1 or reference.startswith("."):
        raise ConfigurationError(f"{variable}={reference!r} is no directory; give a checkpoint directory or a hub id")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(reference, allow_patterns=_WANTED))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ConfigurationError(
            f"{variable}={reference!r} is no directory here and could not be fetched from the hub "
            f"({type(error).__name__}); check the name, the network and HF_TOKEN"
        ) from error
