"""The budget of turns: in the money or not, percentiles, and the table that is exported."""

from __future__ import annotations

import csv
import io

import pytest

from app.talk.budget import PARTS, TurnBudget, as_csv, percentile, table


@pytest.mark.parametrize(("ready_ms", "judged"), [(900.0, True), (1500.0, True), (1500.1, False), (None, None)])
def test_a_turn_is_in_the_money_if_its_audio_was_ready_within_the_snooze_window(
    ready_ms: float | None, judged: bool | None
) -> None:
    assert TurnBudget(turn=1, ready_ms=ready_ms).in_the_money is judged


def test_percentiles_are_values_that_were_measured() -> None:
    values = [float(number) for number in range(1, 21)]
    assert (percentile(values, 50), percentile(values, 95), percentile(values, 100)) == (10, 19, 20)
    assert percentile([7.0], 95) == 7
    assert percentile([], 50) is None


def test_the_table_leaves_out_what_was_not_measured() -> None:
    budgets = [
        TurnBudget(turn=1, ready_ms=400.0, heard_ms=700.0),
        TurnBudget(turn=2, ready_ms=1600.0),
        TurnBudget(turn=3),
    ]
    figures = table(budgets)
    assert figures["turns"] == 3
    assert figures["in_the_money"] == 0.5
    assert figures["ready_ms"] == {"p50": 400, "p95": 1600}
    assert figures["heard_ms"] == {"p50": 700, "p95": 700}
    assert figures["token_ms"] == {"p50": None, "p95": None}


def test_the_exported_table_has_a_line_for_each_turn() -> None:
    [row] = csv.DictReader(io.StringIO(as_csv([TurnBudget(turn=1, ready_ms=400.5, cut=True)])))
    assert (row["turn"], row["ready_ms"], row["token_ms"], row["cut"], row["in_the_money"]) == (
        "1", "400.5", "", "True", "True",
    )  # fmt: skip
    assert set(PARTS) <= set(row)
