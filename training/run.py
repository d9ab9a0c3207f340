"""What a training is told to do, as its directory says it. Light: nothing here needs torch."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from app.core.cloning import TrainConfig
from app.core.errors import ConfigurationError
from app.core.models import Frozen


class RunConfig(Frozen):
    """One training, as `run.json` says it. Relative paths are below the run's directory."""

    model_dir: Path = Field(description="A Hugging Face causal language model with a `speech` entry.")
    codec_dir: Path = Field(description="Its SNAC.")
    dataset: Path = Path("dataset.npz")
    prompt_name: str = Field(min_length=1, description="The name the clips' prompts begin with.")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = Field(default=1, ge=1, description="Of torch, on a CPU.")
    train: TrainConfig = TrainConfig()


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
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ConfigurationError(f"{path.name}: {place}: {first['msg']}") from None
    return run.model_copy(
        update={name: directory / getattr(run, name) for name in ("model_dir", "codec_dir", "dataset")}
    )
