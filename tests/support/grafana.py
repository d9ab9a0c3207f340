"""What Grafana makes of a dashboard's JSON: its panels' places, its variables in queries, its legends and its units.

It asks no Prometheus and draws nothing; `tests.support.dashboard_pictures` does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})")
LABEL = re.compile(r"\{\{\s*(\w+)\s*\}\}")
COLUMNS = 24


@dataclass(frozen=True)
class Place:
    """In the grid, whose rows go down."""

    x: int
    y: int
    w: int
    h: int


@dataclass(frozen=True)
class Panel:
    title: str
    unit: str
    place: Place
    queries: Mapping[str, str]
    """By their legends' patterns."""


@dataclass(frozen=True)
class Window:
    """The time that a dashboard shows, and how often Prometheus scrapes."""

    begin_s: float
    end_s: float
    scrape_s: float
    points: int = 600
    """As many as a panel is wide."""

    @property
    def step_s(self) -> int:
        return max(1, round(max((self.end_s - self.begin_s) / self.points, self.scrape_s)))

    def filled(self, query: str) -> str:
        """With Grafana's own variables replaced. Raises KeyError for any other."""
        values = {
            "__interval": self.step_s,
            "__rate_interval": max(self.step_s + self.scrape_s, 4 * self.scrape_s),
            "__range": self.end_s - self.begin_s,
        }
        return VARIABLE.sub(lambda found: f"{values[found[1] or found[2]]:.0f}s", query)


def title_of(dashboard: str) -> str:
    return json.loads(dashboard)["title"]


def panels_of(dashboard: str) -> Iterator[Panel]:
    for panel in json.loads(dashboard)["panels"]:
        yield Panel(
            panel["title"],
            panel["fieldConfig"]["defaults"]["unit"],
            Place(**panel["gridPos"]),
            {target["legendFormat"]: target["expr"] for target in panel["targets"]},
        )


def legend(pattern: str, labels: Mapping[str, str]) -> str:
    """The name of a series; a label that it lacks is nothing."""
    return LABEL.sub(lambda found: labels.get(found[1], ""), pattern).strip()


def _scaled(*names: str, by: float, before: str = "") -> Callable[[float], str]:
    """Three figures, and the name of the power of `by`."""

    def form(value: float) -> str:
        power = 0
        while abs(value) >= by and power < len(names) - 1:
            value, power = value / by, power + 1
        return f"{before}{_three_figures(value)}{names[power]}"

    return form


def _seconds(value: float) -> str:
    for least, name in ((86_400, " day"), (3600, " hour"), (60, " min"), (1, " s"), (1e-3, " ms"), (1e-6, " µs")):
        if abs(value) >= least:
            return f"{_three_figures(value / least)}{name}"
    return f"{_three_figures(value)} s"


def _three_figures(value: float) -> str:
    return f"{float(f'{value:.3g}'):g}"


UNITS: Mapping[str, Callable[[float], str]] = {
    "none": _three_figures,
    "short": _scaled("", " K", " Mil", " Bil", by=1000),
    "reqps": _scaled(" req/s", "K req/s", "M req/s", by=1000),
    "ops": _scaled(" ops/s", "K ops/s", "M ops/s", by=1000),
    "percentunit": lambda share: f"{_three_figures(100 * share)}%",
    "currencyUSD": _scaled("", "K", "M", by=1000, before="$"),
    "h": lambda hours: f"{_three_figures(hours)} hour" if abs(hours) < 24 else _seconds(3600 * hours),
    "s": _seconds,
}
"""How a value is written, by the unit's name in the JSON."""
