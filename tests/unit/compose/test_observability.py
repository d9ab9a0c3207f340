"""Dashboards and alerts name what is there, and say when they should."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml

from tests.support.metric_names import series

OBSERVABILITY = Path(__file__).parents[3] / "compose" / "observability"
ALERTS = OBSERVABILITY / "alerts.yml"

NAME = re.compile(r"\b(?:carillon[_:][a-zA-Z0-9_:]+|up)\b")
GROUPING = re.compile(r"\bby \(([^)]*)\)")
MATCHERS = re.compile(r"(carillon[_:][a-zA-Z0-9_:]+|up)\{([^}]*)\}")


def rules() -> list[dict[str, str]]:
    return [rule for group in yaml.safe_load(ALERTS.read_text("utf-8"))["groups"] for rule in group["rules"]]


def dashboards() -> list[Path]:
    return sorted((OBSERVABILITY / "dashboards").glob("*.json"))


def queries(dashboard: Path) -> Iterator[str]:
    for panel in json.loads(dashboard.read_text("utf-8"))["panels"]:
        yield from (target["expr"] for target in panel["targets"])


def recorded() -> dict[str, frozenset[str]]:
    """The series that rules make, with what they are grouped by."""
    grouped = {rule["record"]: GROUPING.findall(rule["expr"]) for rule in rules() if "record" in rule}
    return {
        name: frozenset(re.split(r",\s*", groups[0])) if groups else frozenset() for name, groups in grouped.items()
    }


@cache
def known() -> dict[str, frozenset[str]]:
    return series() | recorded()


def faults(query: str) -> list[str]:
    """The names in a query that no process has, and labels that its series lack."""
    names = NAME.findall(query)
    wrong = [name for name in names if name not in known()]
    if wrong or not names:
        return wrong or ["it names no metric"]
    for name, matchers in MATCHERS.findall(query):
        asked = set(re.findall(r"(\w+)\s*[=!]", matchers))
        wrong += [f"{name}{{{label}}}" for label in asked - known()[name]]
    labels = frozenset[str]().union(*(known()[name] for name in names))
    for group in GROUPING.findall(query):
        wrong += [f"by ({label})" for label in re.split(r",\s*", group) if label not in labels]
    return wrong


@pytest.mark.parametrize("dashboard", dashboards(), ids=lambda path: path.stem)
def test_a_dashboard_names_what_is_there(dashboard: Path) -> None:
    assert {query: wrong for query in queries(dashboard) if (wrong := faults(query))} == {}


def test_the_rules_name_what_is_there() -> None:
    assert {rule["expr"]: wrong for rule in rules() if (wrong := faults(rule["expr"]))} == {}


def test_what_is_not_there_is_found() -> None:
    assert faults("rate(carillon_nothing_total[5m])") == ["carillon_nothing_total"]
    assert faults("sum by (colour) (carillon_sessions_open)") == ["by (colour)"]
    assert faults('carillon_sessions_open{colour="red"}') == ["carillon_sessions_open{colour}"]


def test_every_alert_has_a_severity_a_summary_and_its_place_in_the_runbook() -> None:
    runbook = (OBSERVABILITY.parent / "DEPLOY.md").read_text("utf-8")
    for rule in rules():
        if alert := rule.get("alert"):
            assert rule["labels"]["severity"] in ("page", "warn"), alert  # type: ignore[index]
            assert rule["annotations"]["summary"], alert  # type: ignore[index]
            assert f"`{alert}`" in runbook, f"compose/DEPLOY.md does not say what to do about {alert}"


def test_every_metric_of_ours_has_a_help_and_a_unit_in_its_name() -> None:
    units = ("_seconds", "_total", "_ratio", "_usd_per_hour", "_bucket", "_count", "_sum")
    amounts = re.compile(
        r"_(open|workers|places|leases|waiting|sessions|active|running|slots|ready|jobs|messages|factor)"
    )
    for name in series():
        assert name in ("up",) or not name.startswith("carillon") or name.endswith(units) or amounts.search(name), name


def test_the_dashboards_are_as_grafanas_builders_make_them() -> None:
    pytest.importorskip("grafana_foundation_sdk")
    for path, text in runpy.run_path(str(OBSERVABILITY / "dashboards.py"))["files"]():
        assert path.read_text("utf-8") == text, (
            f"{path.name} is not current: python compose/observability/dashboards.py"
        )


promtool = pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not here: apt-get install prometheus")


@promtool
def test_promtool_takes_rules_and_configuration() -> None:
    for check in (["check", "rules", "alerts.yml"], ["check", "config", "--syntax-only", "prometheus.yml"]):
        done = subprocess.run(["promtool", *check], check=False, cwd=OBSERVABILITY, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


@promtool
def test_alerts_come_when_they_should_and_not_before() -> None:
    done = subprocess.run(
        ["promtool", "test", "rules", str(Path(__file__).parent / "alerts.test.yml")],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
