"""What `carillon simulate` writes: the table, the file, the plot."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner, Result

from app.cli.main import cli
from app.errors import ConfigurationError
from app.simulation.fleet import FleetShape
from app.simulation.policies import POLICIES
from app.simulation.report import simulate
from app.simulation.simulation import FrontDoors
from app.simulation.traffic import Traffic

SHAPE = FleetShape(workers=8, capacity=8, max_voices=6, cached_adapters=12)
TRAFFIC = Traffic(duration_s=1200, warm_up_s=0, concurrent=45, mean_session_s=60, voices=200, storm=0.3)
SVG = "{http://www.w3.org/2000/svg}"


def run(*options: str) -> Result:
    return CliRunner().invoke(
        cli, ["simulate", "--workers", "6", "--hours", "0.1", "--voices", "50", "--jobs", "1", *options]
    )


def test_the_table_and_the_file_tell_the_same_of_every_policy(tmp_path: Path) -> None:
    out = io.StringIO()
    path = tmp_path / "report.json"
    simulate(TRAFFIC, SHAPE, FrontDoors(), gpu_hour=2.0, find_size=False, json_path=path, out=out)
    rows = json.loads(path.read_text("utf-8"))["policies"]
    assert [row["policy"] for row in rows] == list(POLICIES)
    for row in rows:
        assert any(
            line.startswith(row["policy"]) and f"{row['warm_rate']:.1%}" in line for line in out.getvalue().splitlines()
        )
        assert row["audio_hour"] == pytest.approx(2.0 * SHAPE.workers / row["mean_concurrent"])


def test_policies_that_are_played_at_a_time_come_to_the_same_table() -> None:
    one, two = (run("--policy", "ours", "--policy", "random", "--jobs", jobs) for jobs in ("1", "2"))
    assert one.exit_code == two.exit_code == 0
    assert one.output == two.output


def test_only_the_chosen_policies_are_run_in_the_tables_order() -> None:
    found = run("--policy", "random", "--policy", "ours")
    assert found.exit_code == 0
    assert [name for name in POLICIES if f"\n{name}  " in found.output] == ["ours", "random"]


def test_an_unknown_policy_is_refused_with_those_there_are() -> None:
    found = run("--policy", "best")
    assert found.exit_code == 2
    assert "ring of voices" in found.output


def test_the_same_seed_draws_the_same_plot_byte_by_byte(tmp_path: Path) -> None:
    first, second, other = (tmp_path / name for name in ("first.svg", "second.svg", "other.svg"))
    assert run("--plot", str(first)).exit_code == run("--plot", str(second)).exit_code == 0
    assert run("--plot", str(other), "--seed", "1").exit_code == 0
    assert first.read_bytes() == second.read_bytes() != other.read_bytes()


def test_the_plot_has_four_panels_and_names_every_policy_once_in_the_tables_order(tmp_path: Path) -> None:
    path = tmp_path / "plot.svg"
    assert run("--plot", str(path)).exit_code == 0
    drawing = ElementTree.parse(path).getroot()
    ids = [group.get("id", "") for group in drawing.iter(f"{SVG}g")]
    assert [name for name in ids if name.startswith("axes_")] == ["axes_1", "axes_2", "axes_3", "axes_4"]
    texts = [text.text for text in drawing.iter(f"{SVG}text")]
    assert [text for text in texts if text in POLICIES] == list(POLICIES)


def test_a_policy_looks_the_same_whichever_is_shown_beside_it(tmp_path: Path) -> None:
    alone, among = tmp_path / "alone.svg", tmp_path / "among.svg"
    assert run("--plot", str(alone), "--policy", "least loaded").exit_code == 0
    assert run("--plot", str(among)).exit_code == 0
    strokes = [
        set(re.findall(r"stroke: #[0-9a-f]{6}; stroke-width: 1.4", path.read_text("utf-8"))) for path in (alone, among)
    ]
    assert len(strokes[0]) == 1
    assert strokes[0] < strokes[1]


def test_a_plot_without_matplotlib_is_refused_before_anything_is_played(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    found = run("--plot", str(tmp_path / "plot.svg"), "--policy", "ours")
    assert isinstance(found.exception, ConfigurationError)
    assert "pip install matplotlib" in found.exception.message
    assert found.output == ""
