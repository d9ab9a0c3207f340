"""Directories that are gone when their work is done."""

from __future__ import annotations

import os
from pathlib import Path

from app.platform.workspace import remove_stale


def test_what_a_killed_process_left_is_removed_when_it_is_old(tmp_path: Path) -> None:
    old, young = tmp_path / "old", tmp_path / "young"
    for directory in (old, young):
        directory.mkdir()
        (directory / "000001").touch()
    os.utime(old, (0, 0))
    remove_stale(tmp_path)
    remove_stale(tmp_path / "absent")
    assert list(tmp_path.iterdir()) == [young]
