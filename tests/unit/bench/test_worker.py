"""What `carillon bench worker` makes of what it measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.bench.worker import Load, Side, table


def load(sessions: int, cores: float) -> Load:
    return Load(sessions=sessions, cores=cores, loop_cores=cores / 2, frames_per_s=1000, dry=0.25)


def test_the_table_has_medians_by_level_and_the_ratio_of_the_last_to_the_first() -> None:
    before = Side(Path("before"), [load(50, cores) for cores in (0.2, 0.4, 9.0)] + [load(100, 0.8)])
    after = Side(Path("after"), [load(50, 0.1), load(100, 0.2)])
    lines = table([before, after]).splitlines()
    assert lines[2] == "| 50 | before | 0.40 | 0.20 | 400 | 200 | 25.0 |"
    assert lines[3] == "| 50 | after | 0.10 | 0.05 | 100 | 50 | 25.0 |"
    assert lines[4] == "| | last ÷ first | 0.25 | 0.25 | 0.25 | 0.25 | |"
    assert lines[5].startswith("| 100 | before | 0.80 ")


def test_one_checkout_alone_has_no_ratio() -> None:
    assert len(table([Side(Path("here"), [load(50, 0.1)])]).splitlines()) == 3


def test_a_frame_costs_cores_by_frames() -> None:
    assert load(50, 0.3).us_per_frame == pytest.approx(300)
