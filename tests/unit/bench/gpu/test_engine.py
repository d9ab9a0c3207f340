"""What `carillon bench gpu` makes of the engine's reports."""

from __future__ import annotations

import pytest

from app.bench.gpu.engine import Report, lora_of, rates


def test_rates_are_of_the_time_in_which_all_streams_write() -> None:
    steady = [Report(at_s=second, tokens=100 * second) for second in range(1, 5)]
    late = [Report(at_s=2 + second / 2, tokens=50 * second) for second in range(1, 7)]
    each, total = rates([steady, late])
    assert each == pytest.approx(100)
    assert total == pytest.approx(200)


def test_streams_take_turns_with_the_loras_there_are() -> None:
    assert [lora_of(stream, 3) for stream in range(5)] == [1, 2, 3, 1, 2]
    assert lora_of(4, 0) == 0
