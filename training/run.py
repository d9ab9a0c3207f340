"""What every stage has to do with its run: read it, choose its device, say why it broke off.

Importing this needs no torch, which takes seconds.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from app.errors import CarillonError, ConfigurationError, OutOfMemory, StageFailed
from app.speech.field_errors import first_fault
from app.voices.models import RunConfig

if TYPE_CHECKING:
    import torch


class Stopped(BaseException):
    """Somebody asked this process to end. No Exception: no library on the way may take it for a failure of its own."""


def read_run(directory: Path) -> RunConfig:
    """The run's configuration with its paths resolved. Raises ConfigurationError."""
    path = directory / "run.json"
    try:
        run = RunConfig.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}; write the run's configuration") from None
    except ValidationError as error:
        place, reason = first_fault(error)
        raise ConfigurationError(f"{path.name}: {place}: {reason}") from None
    return run.model_copy(update={name: directory / getattr(run, name) for name in ("model_dir", "codec_dir")})


def torch_device(run: RunConfig) -> torch.device:
    """Where to compute; on a CPU torch gets the run's threads. Raises ConfigurationError where no GPU is seen."""
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # as nvidia-smi counts
    import torch

    if run.device == "cuda" and not torch.cuda.is_available():
        raise ConfigurationError("device is cuda, but torch sees no GPU here; check the driver, or set it to auto")
    if run.device == "cuda" or (run.device == "auto" and torch.cuda.is_available()):
        return torch.device("cuda")
    torch.set_num_threads(run.threads)
    return torch.device("cpu")


def breakage(what: str, error: Exception) -> CarillonError:
    """What is told of an error that is not ours: the system's (a full disk, a lost file) may be over the next time, and
    so may a card's want of memory, which others use too.
    """
    kind = StageFailed if isinstance(error, OSError) else CarillonError
    if type(error).__name__ == "OutOfMemoryError":  # torch's, which is not imported for it
        kind = OutOfMemory
    return kind(f"{what} broke: {type(error).__name__}: {error}")
