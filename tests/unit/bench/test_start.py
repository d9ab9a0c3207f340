"""What `carillon bench start` makes of processes and of what it measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from app.bench.start import CACHES, Checkout, Start, as_json, cpu_by_part, measure, run, table
from app.errors import ConfigurationError


def test_cpu_seconds_are_reported_by_part_from_the_command_lines() -> None:
    busy = "import sys; sum(i * i for i in range(10**6)); print(); sys.stdin.read()"
    command = [sys.executable, "-c", f"{busy}  # app.cli.main worker"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        assert worker.stdout
        worker.stdout.readline()
        spent = cpu_by_part(psutil.Process(worker.pid))
        worker.communicate()
    assert list(spent) == ["worker"]
    assert spent["worker"] > 0


def test_the_table_has_medians_and_the_ratio_of_the_first_to_the_last() -> None:
    before = Checkout(Path("before"), [Start(s, {"engine": s, "up": 1.0}, 0.9, 0.3) for s in (80.0, 100.0, 300.0)])
    after = Checkout(Path("after"), [Start(40.0, {"engine": 9.0, "up": 1.0}, 0.3, 0.1)])
    lines = table([before, after]).splitlines()
    assert lines[2] == "| before | 100.00 | 101.00 | 100.00 | 1.00 | 1.20 | 0.90 | 0.30 |"
    assert lines[4].startswith("| first ÷ last | 2.50 | 10.10 |")


def test_a_checkout_without_an_environment_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"make \.venv/\.run"):
        run([tmp_path], rounds=1, first=False, progress=print)


def test_first_starts_are_a_line_of_their_own() -> None:
    of = [
        Checkout(Path("here"), [Start(s, {"up": s}, 0.1, 0.1)], first=first)
        for s, first in ((30.0, True), (20.0, False))
    ]
    assert [line.split(" | ")[0] for line in table(of).splitlines()[2:4]] == ["| here, first", "| here"]
    assert [checkout["first"] for checkout in json.loads(as_json(of))] == [True, False]


@pytest.mark.parametrize("first", [True, False])
def test_a_first_start_finds_nothing_compiled(tmp_path: Path, first: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in CACHES:
        monkeypatch.delenv(name, raising=False)
    command = tmp_path / ".venv" / "bin" / "carillon"
    command.parent.mkdir(parents=True)
    command.write_text("#!/bin/sh\nenv | grep CACHE\n")
    command.chmod(0o755)
    with pytest.raises(ConfigurationError, match="has ended") as ended:
        measure(command, first=first)
    told = {line.partition("=")[0] for line in ended.value.message.splitlines()}
    assert told.intersection(CACHES) == (set(CACHES) if first else set())
