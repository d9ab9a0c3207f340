"""The tables of a run of `carillon bench gpu`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.bench.gpu.plots import plots
from app.bench.gpu.report import capacity, report
from app.bench.gpu.results import Result, Results, Subject


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(tmp_path / "results.json", Subject(device="a card", model="random weights", tiny=False))


def level(streams: int, holds: bool, precision: str = "none") -> Result:
    figures: dict[str, Any] = {"sessions": 100, "p50_ms": 90.4, "p95_ms": 200.0, "whole_share": 0.995, "holds": holds}
    return Result(
        table="speech",
        name="level",
        parameters={"precision": precision, "voices": 16, "streams": streams},
        figures=figures,
    )


def tokens(batch: int, rate: float) -> Result:
    parameters = {"precision": "none", "slots": 16, "loras": 0, "batch": batch, "mask": True, "penalties": True}
    figures = {"tokens_per_s": rate, "total_tokens_per_s": rate * batch}
    return Result(table="engine", name="tokens", parameters=parameters, figures=figures)


def test_the_most_streams_that_held_are_the_headline_with_their_price(results: Results) -> None:
    for each in (level(32, True), level(64, True), level(128, False)):
        results.put(each)
    assert capacity(results.of("speech", "level")) == {"none": 64}
    said = report(results, price=2)
    assert "bf16: **64 streams**, 0.0312 dollars an hour of audio" in said
    assert "| bf16 | 128 | 100 | 90 / 200 | 99.5 | no | 0.0156 |" in said


def test_a_card_on_which_no_level_held_has_no_price(results: Results) -> None:
    results.put(level(32, False))
    assert "bf16: **0 streams**." in report(results, price=2)


def test_batches_are_columns_and_a_dash_is_what_was_not_measured(results: Results) -> None:
    results.put(tokens(10, 105.0))
    results.put(tokens(64, 80.0))
    mask_off = tokens(64, 82.0)
    results.put(mask_off.model_copy(update={"parameters": {**mask_off.parameters, "mask": False}}))
    said = report(results, price=1)
    assert "| bf16 | 16 | 0 | on | on | 105 / 1050 | 80 / 5120 |" in said
    assert "| bf16 | 16 | 0 | off | on | – | 82 / 5248 |" in said


def test_what_failed_is_told_with_its_reason(results: Results) -> None:
    results.put(tokens(10, 1.0).model_copy(update={"figures": {}, "error": "out of memory"}))
    said = report(results, price=1)
    assert "## What failed" in said
    assert "batch=10 mask=True penalties=True: out of memory" in said
    assert "## The engine" not in said


def test_tables_without_a_result_are_left_out(results: Results) -> None:
    assert "##" not in report(results, price=1)


def test_a_plot_is_drawn_of_every_table_that_has_figures(results: Results) -> None:
    results.put(tokens(10, 105.0))
    results.put(level(32, True))
    drawn = plots(results)
    assert set(drawn) == {"engine", "speech"}
    assert "bf16, 0 LoRAs" in drawn["engine"]
