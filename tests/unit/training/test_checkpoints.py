"""Checkpoints of a training on disk: whole or absent, and only the newest."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.checkpoints import STATE_FILE, Checkpoints, TrainerState


def write_weights(place: Path) -> None:
    (place / "weights").write_bytes(b"12345")


def test_the_newest_checkpoint_is_the_furthest_complete_one(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.newest() is None
    for step in (8, 9, 10):
        checkpoints.save(TrainerState(fingerprint="f", step=step), write_weights)
    *_, newest = sorted(tmp_path.iterdir())
    assert checkpoints.newest() == (newest, TrainerState(fingerprint="f", step=10, file_sizes_bytes={"weights": 5}))
    (newest / "weights").write_bytes(b"1234")
    found = checkpoints.newest()
    assert found and found[1].step == 9
    (found[0] / STATE_FILE).unlink()
    found = checkpoints.newest()
    assert found and found[1].step == 8


def test_a_checkpoint_that_failed_half_way_is_absent_and_swept_up(tmp_path: Path) -> None:
    def fail(place: Path) -> None:
        write_weights(place)
        raise OSError(28, "No space left on device")

    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(OSError, match="No space"):
        checkpoints.save(TrainerState(fingerprint="f", step=1), fail)
    assert checkpoints.newest() is None
    checkpoints.save(TrainerState(fingerprint="f", step=2), write_weights)
    assert len(list(tmp_path.iterdir())) == 1


def test_only_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, kept=2)
    for step in range(1, 12):
        checkpoints.save(TrainerState(fingerprint="f", step=step), write_weights)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["checkpoint-000010", "checkpoint-000011"]
