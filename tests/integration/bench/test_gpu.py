"""`carillon bench gpu` at tiny sizes on a CPU: the real engine, decoder, worker and trainer, so that it cannot rot."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.bench.gpu.plan import TINY, plan
from app.bench.gpu.run import Request, run

pytestmark = [pytest.mark.engine, pytest.mark.slow]

TABLES = ("## End to end", "## The engine", "Under load:", "## The decoder", "## Training")


def test_every_table_is_filled_and_a_second_call_has_nothing_to_do(tmp_path: Path) -> None:
    request = Request(out=tmp_path, device="cpu", model_dir=None, codec_dir=None, tiny=True, budget_s=None, price=1.0)
    results, tables = run(request, progress=lambda text: None)
    assert [each.error for each in results.errors()] == []
    assert all(results.has(each) for each in plan(TINY, "cpu"))
    assert [title for title in TABLES if title not in tables] == []
    assert {path.name for path in tmp_path.glob("*.svg")} == {
        "decoder.svg",
        "engine.svg",
        "speech.svg",
        "training.svg",
    }
    said: list[str] = []
    assert run(request, progress=said.append)[1] == tables
    assert said == ["making random weights"]
