"""The trainer as its parent sees it: a process with lines on its standard output, killed and started again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from app.platform.settings import STAND_IN
from app.voices.models import TrainProgress
from tests.support.deadlines import LONG_HANG_S
from tests.support.tiny_voice import save_run, save_tiny_voice
from training import adapter
from training.lora import DONE, FAILED, STOPPED

ROOT = Path(__file__).parents[3]
EPOCHS = 5
TRAIN: dict[str, Any] = {
    "learning_rate": 0.002,
    "batch_clips": 2,
    "epochs": EPOCHS,
    "patience": EPOCHS,
    "checkpoint_steps": 2,
    "dropout": 0.1,
    "rank": 8,
}


class Trainer:
    """A running `python -m training.lora`; `events` are its lines as they come."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.events: list[dict[str, Any]] = []

    def __iter__(self) -> Iterator[dict[str, Any]]:
        assert self.process.stdout
        for line in self.process.stdout:
            self.events.append(json.loads(line))
            yield self.events[-1]

    def until(self, event: str, occurrence: int = 1) -> None:
        """Reads until the event has come so often."""
        for one in self:
            occurrence -= one["event"] == event
            if not occurrence:
                return
        pytest.fail(f"it ended without {event}: {self.events[-1:]}")

    def end(self) -> int:
        """Reads what is left: the exit code."""
        for _ in self:
            pass
        return self.process.wait(timeout=LONG_HANG_S)

    def steps(self) -> list[int]:
        """The steps trained, in their order."""
        reported = [event for event in self.events if event["event"] == "progress"]
        fields = [{name: value for name, value in event.items() if name != "event"} for event in reported]
        progress = [TrainProgress.model_validate(some) for some in fields]
        return [one.step for one in progress if one.loss is not None]


@contextmanager
def running(directory: Path) -> Iterator[Trainer]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-m", "training.lora", str(directory)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        yield Trainer(process)
    finally:
        process.kill()
        process.communicate()


def run_directory(directory: Path, **train: Any) -> Path:
    """A run on the stand-in, whose every clip is the same code over and over: what is said is of no interest here."""
    return save_run(directory, STAND_IN / "model", STAND_IN / "codec", **(TRAIN | train))


def adapter_weights(directory: Path) -> bytes:
    return (directory / "adapter" / adapter.WEIGHTS_FILE).read_bytes()


@pytest.mark.slow
def test_killed_again_and_again_it_ends_with_the_very_adapter_of_an_undisturbed_run(tmp_path: Path) -> None:
    whole, disturbed = run_directory(tmp_path / "whole"), run_directory(tmp_path / "disturbed")
    with running(whole) as trainer:
        assert trainer.end() == DONE
        outcome = trainer.events[-1]
    with running(disturbed) as trainer:
        trainer.until("progress", 6)  # at step 5, after the checkpoint of step 4
        trainer.process.kill()
        trainer.end()
    with running(disturbed) as trainer:
        trainer.until("checkpoint", 4)  # in the second epoch
        trainer.process.kill()
        assert trainer.end() == -signal.SIGKILL
        assert trainer.steps()[0] > 4  # nothing before the checkpoint is trained again
    with running(disturbed) as trainer:
        assert trainer.end() == DONE
        assert trainer.steps()[0] > outcome["steps"] // EPOCHS
        assert trainer.events[-1] == outcome
    assert adapter_weights(disturbed) == adapter_weights(whole)
    adapter.check(disturbed / "adapter")


@pytest.mark.slow
def test_signalled_to_stop_it_saves_a_checkpoint_and_goes_on_from_there(tmp_path: Path) -> None:
    directory = run_directory(tmp_path, checkpoint_steps=1000)
    with running(directory) as trainer:
        trainer.until("progress", 4)
        trainer.process.terminate()
        assert trainer.end() == STOPPED
        assert [event["event"] for event in trainer.events[-2:]] == ["checkpoint", "stopped"]
        reached = trainer.events[-2]["step"]
    with running(directory) as trainer:
        assert trainer.end() == DONE
        assert trainer.steps()[0] == reached + 1


@pytest.mark.slow
def test_it_ends_when_its_parent_no_longer_listens(tmp_path: Path) -> None:
    with running(run_directory(tmp_path)) as trainer:
        trainer.until("progress", 2)
        assert trainer.process.stdout
        trainer.process.stdout.close()
        assert trainer.process.wait(timeout=LONG_HANG_S) == STOPPED
        trainer.process.stdout = None
    assert list((tmp_path / "checkpoints").glob("checkpoint-*"))


def test_a_failure_is_one_line_with_its_code(tmp_path: Path) -> None:
    model, codec = save_tiny_voice(tmp_path / "voice")
    directory = save_run(tmp_path / "run", model, codec)
    (directory / "dataset.npz").unlink()
    with running(directory) as trainer:
        assert trainer.end() == FAILED
    (event,) = trainer.events
    assert event.pop("message").startswith("dataset.npz cannot be read")
    assert event == {"event": "error", "code": "invalid_request", "retryable": False}
