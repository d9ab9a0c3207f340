"""The file of results, from one run to the next."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.bench.gpu.plan import Measurement
from app.bench.gpu.results import Result, Results, Subject
from app.errors import ConfigurationError

HERE = Subject(device="a card", model="random weights", tiny=True)
MEASUREMENT = Measurement(table="engine", name="tokens", parameters={"batch": 10, "mask": True})
RESULT = Result(table="engine", name="tokens", parameters={"batch": 10, "mask": True}, figures={"tokens_per_s": 105.0})


def test_a_second_run_finds_what_the_first_has_measured(tmp_path: Path) -> None:
    Results(tmp_path / "results.json", HERE).put(RESULT)
    again = Results(tmp_path / "results.json", HERE)
    assert again.has(MEASUREMENT)
    assert again.of("engine") == [RESULT]
    assert not again.has(MEASUREMENT.model_copy(update={"parameters": {"batch": 16, "mask": True}}))


def test_what_failed_is_measured_again(tmp_path: Path) -> None:
    results = Results(tmp_path / "results.json", HERE)
    results.put(RESULT.model_copy(update={"figures": {}, "error": "out of memory"}))
    assert not results.has(MEASUREMENT)
    assert [each.error for each in results.errors()] == ["out of memory"]
    results.put(RESULT)
    assert results.has(MEASUREMENT)
    assert not results.errors()


def test_results_of_another_card_are_not_added_to(tmp_path: Path) -> None:
    Results(tmp_path / "results.json", HERE).put(RESULT)
    with pytest.raises(ConfigurationError, match=r"results of random weights on a card.*another --out"):
        Results(tmp_path / "results.json", HERE.model_copy(update={"device": "another card"}))


def test_a_file_that_is_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text("[]")
    with pytest.raises(ConfigurationError, match="no file of results"):
        Results(path, HERE)
