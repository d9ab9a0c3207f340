"""A process that measures, and what becomes of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from app.bench.gpu.plan import TINY, Measurement
from app.bench.gpu.stage import Job, run_stage

ROOT = Path(__file__).parents[4]
PROGRAM = "tests.support.measuring_stage"


def results_of(*names: str, left_s: float | None = None) -> dict[str, Any]:
    job = Job(
        model_dir=Path("."),
        codec_dir=Path("."),
        adapters=(),
        warm_adapters=0,
        device="cpu",
        sizes=TINY,
        left_s=left_s,
        measurements=tuple(Measurement(table="engine", name=name, about_s=5) for name in names),
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    results = run_stage(PROGRAM, job, environment=environment, progress=lambda text: None)
    return {result.name: result.error or result.figures["value"] for result in results}


def test_figures_come_and_one_failure_is_not_the_end() -> None:
    assert results_of("one", "raises", "two") == {"one": 1, "raises": "ValueError: no such thing", "two": 1}


def test_parts_that_stand_alone_come_before_the_whole() -> None:
    assert list(results_of("parts")) == ["part", "parts"]


def test_a_process_that_dies_is_the_error_of_what_it_had_begun() -> None:
    assert results_of("one", "dies", "two") == {"one": 1, "dies": "the process ended with 3"}


def test_what_would_not_be_over_in_time_is_not_begun() -> None:
    assert results_of("one", left_s=2) == {}


def test_what_a_library_prints_is_no_result(capfd: pytest.CaptureFixture[str]) -> None:
    assert results_of("prints") == {"prints": 1}
    assert "a library speaks" in capfd.readouterr().err
