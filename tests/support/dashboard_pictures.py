"""`python -m tests.support.dashboard_pictures`: pictures of the dashboards over some minutes of a real fleet.

`carillon up` runs with the stand-in, listeners keep it busy, and Prometheus scrapes it. What each panel's queries find
is drawn where the panel is, by matplotlib: this is not Grafana. Panels that found nothing are named.
"""

from __future__ import annotations

import asyncio
import io
import math
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import psutil
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from app.local.embedded import LOOPBACK, free_port
from tests.support.dashboard_traffic import traffic
from tests.support.grafana import COLUMNS, UNITS, Panel, Window, legend, panels_of, title_of
from tests.support.prometheus import OBSERVABILITY, asked, prometheus
from tests.support.running_fleet import QUICK_RECIPE, RunningFleet, running_fleet

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TARGET = OBSERVABILITY / "pictures"
MAX_BYTES = 100_000
COLOURS = (256, 128, 64, 32, 16)
SCRAPE_S = 3.0

COLUMN_IN, ROW_IN, HEAD_IN = 0.42, 0.29, 0.35
DOTS_PER_INCH = 84
LEGENDS_A_ROW, MAX_LEGENDS = 3, 9

Series = Mapping[str, Sequence[tuple[float, float]]]
"""By legend: times and values."""


async def main() -> None:
    with tempfile.TemporaryDirectory(prefix="carillon-pictures-") as name:
        directory, tasks_port = Path(name), free_port()
        configured = {
            **QUICK_RECIPE,
            "CARILLON_METRICS__TASKS_PORT": str(tasks_port),
            "CARILLON_NARRATION__WORKER_USD_PER_HOUR": "1",
        }
        with running_fleet(directory / "fleet", configured) as fleet:
            async with prometheus(directory, targets_of(fleet, tasks_port), scrape_s=SCRAPE_S) as client:
                begin_s = time.time()
                await traffic(fleet, directory)
                await asyncio.sleep(2 * SCRAPE_S)
                await draw_all(client, Window(begin_s, time.time(), SCRAPE_S))


def targets_of(fleet: RunningFleet, tasks_port: int) -> dict[str, str]:
    worker = psutil.Process(fleet.pid_of("worker-1")).environ()["CARILLON_WORKER_PORT"]
    return {
        "carillon-api": fleet.address.removeprefix("http://"),
        "carillon-worker": f"{LOOPBACK}:{worker}",
        "carillon-tasks": f"{LOOPBACK}:{tasks_port}",
    }


async def draw_all(client: httpx.AsyncClient, window: Window) -> None:
    TARGET.mkdir(exist_ok=True)
    for path in sorted((OBSERVABILITY / "dashboards").glob("*.json")):
        dashboard = path.read_text("utf-8")
        found = [(panel, await series_of(client, panel, window)) for panel in panels_of(dashboard)]
        data = small_png(draw(title_of(dashboard), found, window))
        (TARGET / f"{path.stem}.png").write_bytes(data)
        empty = [panel.title for panel, series in found if not series]
        sys.stdout.write(f"{path.stem}.png: {len(data) / 1000:.0f} kB; no data: {', '.join(empty) or 'none'}\n")


async def series_of(client: httpx.AsyncClient, panel: Panel, window: Window) -> Series:
    """What is there to be drawn: a series without a number is none."""
    series: dict[str, list[tuple[float, float]]] = {}
    for pattern, query in panel.queries.items():
        limits = {"start": window.begin_s, "end": window.end_s, "step": window.step_s}
        for found in await asked(client, "query_range", query=window.filled(query), **limits):
            points = [((at - window.begin_s) / 60, float(value)) for at, value in found["values"]]
            if any(math.isfinite(value) for _, value in points):
                series[legend(pattern, found["metric"])] = points
    return series


def draw(title: str, found: Sequence[tuple[Panel, Series]], window: Window) -> Figure:
    rows = max(panel.place.y + panel.place.h for panel, _ in found)
    width_in, height_in = COLUMNS * COLUMN_IN, rows * ROW_IN + HEAD_IN
    figure = Figure(figsize=(width_in, height_in), dpi=DOTS_PER_INCH, facecolor="#f4f5f5")
    figure.text(0.12 / width_in, 1 - 0.25 / height_in, title, size=11, weight="bold")
    for panel, series in found:
        place = panel.place
        left, right = place.x * COLUMN_IN + 0.85, (place.x + place.w) * COLUMN_IN - 0.15
        top, bottom = height_in - HEAD_IN - place.y * ROW_IN - 0.3, height_in - HEAD_IN - (place.y + place.h) * ROW_IN
        bottom += 0.35 + 0.15 * math.ceil(min(len(series), MAX_LEGENDS) / LEGENDS_A_ROW)
        box = (left / width_in, bottom / height_in, (right - left) / width_in, (top - bottom) / height_in)
        draw_panel(figure.add_axes(box), panel, series, (window.end_s - window.begin_s) / 60)
    return figure


def draw_panel(axes: Axes, panel: Panel, series: Series, minutes: float) -> None:
    axes.set_title(panel.title, size=8, loc="left", pad=4)
    axes.set_xlim(0, minutes)
    axes.grid(alpha=0.25)
    axes.tick_params(labelsize=6.5, length=2)
    axes.xaxis.set_major_formatter(lambda minute, _: f"{minute:g} min")
    axes.yaxis.set_major_formatter(lambda value, _: UNITS[panel.unit](value))
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    axes.spines[["top", "right"]].set_visible(False)
    for name, points in sorted(series.items()):
        axes.plot(*zip(*points, strict=True), label=name, linewidth=1, marker=".", markersize=2)
    axes.set_ylim(bottom=0, top=None if any(value > 0 for points in series.values() for _, value in points) else 1)
    if not series:
        axes.text(0.5, 0.5, "No data", transform=axes.transAxes, ha="center", color="grey", size=8)
        return
    handles, names = axes.get_legend_handles_labels()
    if len(names) > MAX_LEGENDS:
        names[MAX_LEGENDS - 1] = f"and {len(names) - MAX_LEGENDS + 1} more"
    axes.legend(
        handles[:MAX_LEGENDS], names[:MAX_LEGENDS], ncols=LEGENDS_A_ROW, fontsize=6, frameon=False,
        loc="upper left", bbox_to_anchor=(-0.02, -0.12), handlelength=1, borderaxespad=0, labelspacing=0.2,
    )  # fmt: skip


def small_png(figure: Figure) -> bytes:
    """Of as many colours as fit."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    picture, data = Image.open(drawn).convert("RGB"), b""
    for colours in COLOURS:
        small = io.BytesIO()
        picture.quantize(colours).save(small, "PNG", optimize=True)
        data = small.getvalue()
        if len(data) < MAX_BYTES:
            break
    return data


if __name__ == "__main__":
    asyncio.run(main())
