"""The trainer's checkpoints: directories that are complete or absent, however the process that writes them ends.

A checkpoint is written beside its place and renamed into it; its `trainer_state.json` is the last file written and says
how long the others are, so that a half-copied one is detected too. What the files mean is the trainer's.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from pydantic import ValidationError

from app.speech.voices import Frozen

STATE_FILE = "trainer_state.json"
KEPT = 3
"""Newest ones left on disk. More than one, so that a copy of the last has time until it goes."""

_PREFIX, _UNFINISHED = "checkpoint-", ".unfinished-"


class TrainerState(Frozen):
    """How far a training is. The held-out losses begin with the base's own, so that there is one more than epochs."""

    fingerprint: str
    step: int = 0
    held_out_losses: tuple[float, ...] = ()
    file_sizes_bytes: Mapping[str, int] = {}

    @property
    def finished_epochs(self) -> int:
        return max(0, len(self.held_out_losses) - 1)

    @property
    def best_epoch(self) -> int:
        """The first epoch, from 1, with the least held-out loss; 0 before any is finished."""
        losses = self.held_out_losses[1:]
        return losses.index(min(losses)) + 1 if losses else 0


class Checkpoints:
    """The checkpoints of one training, in one directory, numbered as they were saved: `checkpoint-000001`."""

    def __init__(self, directory: Path, *, kept: int = KEPT) -> None:
        self.directory = directory
        self._kept = kept

    def newest(self) -> tuple[Path, TrainerState] | None:
        """The complete checkpoint that is furthest, if there is any."""
        for path in reversed(self._paths()):
            state = complete_state(path)
            if state:
                return path, state
        return None

    def save(self, state: TrainerState, write: Callable[[Path], None]) -> Path:
        """Let `write` fill a directory, and put it in its place with `state`; then remove all but the newest."""
        number = max((_number(path) for path in self._paths()), default=0) + 1
        path = self.directory / f"{_PREFIX}{number:06d}"
        unfinished = self.directory / f"{_UNFINISHED}{path.name}"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        write(unfinished)
        sizes = {file.name: file.stat().st_size for file in sorted(unfinished.iterdir())}
        stated = state.model_copy(update={"file_sizes_bytes": sizes})
        (unfinished / STATE_FILE).write_text(stated.model_dump_json(indent=2), "utf-8")
        settle(unfinished, path)
        self._prune()
        return path

    def _prune(self) -> None:
        for path in self._paths()[: -self._kept]:
            shutil.rmtree(path, ignore_errors=True)
        for path in self.directory.glob(f"{_UNFINISHED}*"):
            shutil.rmtree(path, ignore_errors=True)

    def _paths(self) -> list[Path]:
        return sorted(self.directory.glob(f"{_PREFIX}*"), key=_number)


def _number(path: Path) -> int:
    return int(path.name.removeprefix(_PREFIX))


def complete_state(path: Path) -> TrainerState | None:
    """The state of a complete checkpoint; None where a file is missing or shorter than it was."""
    try:
        state = TrainerState.model_validate_json((path / STATE_FILE).read_bytes())
        whole = all((path / name).stat().st_size == size for name, size in state.file_sizes_bytes.items())
    except (OSError, ValidationError):
        return None
    return state if whole else None


def settle(unfinished: Path, path: Path) -> None:
    """Rename a finished directory into its place, its files on disk first. An older one there makes room for it."""
    for file in unfinished.iterdir():
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
    former = path.with_name(f"{_UNFINISHED}former-{path.name}")
    shutil.rmtree(former, ignore_errors=True)
    if path.exists():
        path.replace(former)
    unfinished.replace(path)
    shutil.rmtree(former, ignore_errors=True)
