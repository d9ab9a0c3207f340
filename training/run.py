"""The directory that a training is told to work in, and the word for its being stopped. Nothing here needs torch."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from app.core.cloning import RunConfig
from app.core.errors import ConfigurationError


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
    return run.model_copy(update={name: directory / getattr(run, name) for name in ("model_dir", "codec_dir")})
