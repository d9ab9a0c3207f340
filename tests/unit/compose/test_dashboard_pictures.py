"""The pictures of the dashboards ask what Grafana would ask, and write it as Grafana would."""

from __future__ import annotations

import io
from itertools import combinations
from pathlib import Path

import pytest
from PIL import Image

from tests.support.dashboard_pictures import MAX_BYTES, TARGET, draw, small_png
from tests.support.grafana import COLUMNS, UNITS, Panel, Place, Window, legend, panels_of, title_of
from tests.unit.compose.test_observability import dashboards

MINUTES = Window(begin_s=1000, end_s=1180, scrape_s=15)


@pytest.mark.parametrize("dashboard", dashboards(), ids=lambda path: path.stem)
def test_every_panel_is_understood(dashboard: Path) -> None:
    for panel in panels_of(dashboard.read_text("utf-8")):
        assert panel.unit in UNITS, panel.title
        assert panel.queries, panel.title
        assert not any("$" in MINUTES.filled(query) for query in panel.queries.values())


@pytest.mark.parametrize("dashboard", dashboards(), ids=lambda path: path.stem)
def test_panels_lie_in_the_grid_and_not_on_each_other(dashboard: Path) -> None:
    places = [panel.place for panel in panels_of(dashboard.read_text("utf-8"))]
    assert all(place.x >= 0 and place.x + place.w <= COLUMNS for place in places)
    for one, other in combinations(places, 2):
        beside = one.x + one.w <= other.x or other.x + other.w <= one.x
        assert beside or one.y + one.h <= other.y or other.y + other.h <= one.y


def test_a_rate_is_over_four_scrapes_or_a_step_and_one() -> None:
    assert MINUTES.filled("rate(a[$__rate_interval])") == "rate(a[60s])"
    assert Window(0, 86_400, scrape_s=15).filled("rate(a[${__rate_interval}])") == "rate(a[159s])"
    assert MINUTES.filled("increase(a[$__range])[$__interval]") == "increase(a[180s])[15s]"


def test_a_variable_that_is_not_known_is_an_error() -> None:
    with pytest.raises(KeyError, match="project"):
        MINUTES.filled('a{project="$project"}')


def test_a_legend_has_the_labels_of_its_series() -> None:
    assert legend("p95 {{edge}}, {{ outcome }}", {"edge": "openai", "outcome": "done"}) == "p95 openai, done"
    assert legend("held {{model}}", {}) == "held"


@pytest.mark.parametrize(
    ("unit", "value", "written"),
    [
        ("none", 0.4567, "0.457"),
        ("short", 1234, "1.23 K"),
        ("short", 1000, "1 K"),
        ("reqps", 0.25, "0.25 req/s"),
        ("ops", 12, "12 ops/s"),
        ("percentunit", 0.125, "12.5%"),
        ("currencyUSD", 2.5, "$2.5"),
        ("h", 36, "1.5 day"),
        ("s", 0, "0 s"),
        ("s", 0.00025, "250 µs"),
        ("s", 0.25, "250 ms"),
        ("s", 90, "1.5 min"),
        ("s", 5400, "1.5 hour"),
    ],
)
def test_a_value_is_written_in_its_unit(unit: str, value: float, written: str) -> None:
    assert UNITS[unit](value) == written


def test_a_panel_without_data_is_drawn_too() -> None:
    panels = [Panel("Left", "s", Place(0, 0, 12, 8), {}), Panel("Right", "short", Place(12, 0, 12, 8), {})]
    data = small_png(draw("Two", [(panels[0], {"a": [(0, 1), (1, float("nan")), (2, 3)]}), (panels[1], {})], MINUTES))
    assert Image.open(io.BytesIO(data)).width > 800


def test_every_dashboard_has_a_small_picture() -> None:
    for dashboard in dashboards():
        assert title_of(dashboard.read_text("utf-8")).startswith("Carillon: ")
        assert 1000 < (TARGET / f"{dashboard.stem}.png").stat().st_size < MAX_BYTES
