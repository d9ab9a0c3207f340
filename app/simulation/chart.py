"""Line charts as SVG: panels with axes, curves and one legend, readable in light and dark, the same bytes each time.

It knows how a chart is drawn, and nothing of what is shown. Coordinates are rounded to tenths of a pixel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from math import floor, log2, log10

WIDTH, HEIGHT = 460, 250
"""Of a panel, in pixels."""
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 34, 42
"""Room around its axes."""
COLUMNS = 2
HEAD = 64
"""Room for the title and the legend."""
LEGEND_STEP = 148

COLOURS = (
    ("#0b6bcb", "#58a6ff"),
    ("#c2410c", "#ff9e64"),
    ("#6b7280", "#a3adba"),
    ("#0f8a5f", "#3ddc97"),
    ("#b0318f", "#f08bd8"),
    ("#8a6d00", "#e8c547"),
)
"""Of the curves, on light and on dark."""

STYLE = """\
svg{background:#fff;font:12px system-ui,sans-serif}
text{fill:#1f2328}.title{font-weight:600}.faint{fill:#59636e;font-size:11px}
.grid{stroke:#e3e7eb}.axis{stroke:#8b949e}.mark{stroke:#8b949e;stroke-dasharray:2 3}.band{fill:#8b949e;opacity:.16}
.curve{fill:none;stroke-width:1.6;stroke-linejoin:round}.bold{stroke-width:2.6}.dotted{stroke-dasharray:5 3}
.limit{fill:none;stroke:#1f2328;stroke-dasharray:1 3}
"""
DARK = (
    "svg{background:#0d1117}text{fill:#e6edf3}.faint{fill:#9198a1}.grid{stroke:#21262d}.axis,.mark{stroke:#6e7681}"
    ".limit{stroke:#e6edf3}"
)

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Curve:
    """A line through points; `style` is its place in `COLOURS`, the first of which is drawn bold and above the rest."""

    label: str
    style: int
    points: Points


@dataclass(frozen=True, slots=True)
class Panel:
    """One pair of axes. The vertical one begins at `floor`, the horizontal one at 0, or at 1 for `octaves`."""

    title: str
    x_label: str
    curves: Sequence[Curve]
    y_format: Callable[[float], str]
    floor: float = 0.0
    octaves: bool = False
    """The horizontal axis is logarithmic."""
    limit: Points = ()
    """What no curve can be above, as a dotted line."""
    bands: Sequence[tuple[float, float, str]] = ()
    """(from, to, label) on the horizontal axis."""
    marks: Sequence[float] = ()


def svg(title: str, panels: Sequence[Panel]) -> str:
    """The panels, two beside each other, below a title and the legend of the first panel's curves."""
    rows = -(-len(panels) // COLUMNS)
    width, height = COLUMNS * WIDTH, HEAD + rows * HEIGHT
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{_style()}</style>",
        _text(14, 22, title, "title"),
        *_legend(panels[0].curves),
    ]
    for number, panel in enumerate(panels):
        at = f"translate({number % COLUMNS * WIDTH} {HEAD + number // COLUMNS * HEIGHT})"
        lines += [f'<g transform="{at}">', *_Axes(panel).draw(), "</g>"]
    return "\n".join([*lines, "</svg>"]) + "\n"


def _style() -> str:
    light = "".join(f".s{i}{{stroke:{colour}}}" for i, (colour, _) in enumerate(COLOURS))
    dark = "".join(f".s{i}{{stroke:{colour}}}" for i, (_, colour) in enumerate(COLOURS))
    return f"\n{STYLE}{light}\n@media(prefers-color-scheme:dark){{{DARK}{dark}}}\n"


def _legend(curves: Sequence[Curve]) -> Iterator[str]:
    for number, curve in enumerate(curves):
        x = 14 + number * LEGEND_STEP
        yield f'<path class="{_class(curve)}" d="M{x} 44h20"/>'
        yield _text(x + 26, 48, curve.label)


def _class(curve: Curve) -> str:
    """Every other style is dashed too, so that curves differ by more than colour."""
    emphasis = " bold" if curve.style == 0 else " dotted" if curve.style % 2 else ""
    return f"curve s{curve.style}{emphasis}"


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>'


class _Axes:
    """A panel's scales, and what is drawn on them."""

    def __init__(self, panel: Panel) -> None:
        self._panel = panel
        origin = (1.0 if panel.octaves else 0.0, panel.floor)
        points = [origin, *(point for curve in panel.curves for point in curve.points), *panel.limit]
        xs, ys = [self._along(x) for x, _ in points], [y for _, y in points]
        self._left, self._right = xs[0], max(*xs, xs[0] + 1e-9)
        self._ticks = ticks(panel.floor, max(*ys, panel.floor + 1e-9))

    def _along(self, x: float) -> float:
        return log2(x) if self._panel.octaves else x

    def _x(self, x: float) -> float:
        return LEFT + (self._along(x) - self._left) / (self._right - self._left) * (WIDTH - LEFT - RIGHT)

    def _y(self, y: float) -> float:
        low, high = self._ticks[0], self._ticks[-1]
        return HEIGHT - BOTTOM - (y - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    def draw(self) -> Iterator[str]:
        panel, bottom = self._panel, HEIGHT - BOTTOM
        yield _text(LEFT, 18, panel.title, "title")
        for begins, ends, label in panel.bands:
            x, width = self._x(begins), self._x(ends) - self._x(begins)
            yield f'<rect class="band" x="{x:.1f}" y="{TOP}" width="{width:.1f}" height="{bottom - TOP}"/>'
            yield _text(x + 4, TOP + 12, label, "faint")
        for tick in self._ticks:
            yield f'<path class="grid" d="M{LEFT} {self._y(tick):.1f}H{WIDTH - RIGHT}"/>'
            yield _text(LEFT - 6, self._y(tick) + 4, panel.y_format(tick), "faint", "end")
        for mark in panel.marks:
            yield f'<path class="mark" d="M{self._x(mark):.1f} {TOP}V{bottom}"/>'
        yield f'<path class="axis" d="M{LEFT} {bottom}H{WIDTH - RIGHT}"/>'
        for tick in self._x_ticks():
            yield _text(self._x(tick), bottom + 16, f"{tick:,.15g}", "faint", "middle")
        yield _text((LEFT + WIDTH - RIGHT) / 2, bottom + 33, panel.x_label, "faint", "middle")
        if panel.limit:
            yield f'<path class="limit" d="{self._path(panel.limit)}"/>'
        for curve in sorted(panel.curves, key=lambda curve: -curve.style):
            if curve.points:
                yield f'<path class="{_class(curve)}" d="{self._path(curve.points)}"/>'

    def _x_ticks(self) -> list[float]:
        if self._panel.octaves:
            return [10.0**power for power in range(floor(self._right * log10(2) + 1e-9) + 1)]
        return [tick for tick in ticks(self._left, self._right) if tick <= self._right + 1e-9]

    def _path(self, points: Points) -> str:
        return "M" + "L".join(f"{self._x(x):.1f} {self._y(y):.1f}" for x, y in points)


def ticks(low: float, high: float) -> list[float]:
    """Round numbers from `low` to `high` or just beyond, at most seven of them, in steps of 1, 2 or 5 times 10^n."""
    rough = (high - low) / 5
    magnitude = 10.0 ** floor(log10(rough))
    step = next(step * magnitude for step in (1, 2, 5, 10) if step * magnitude >= rough * 0.999)
    first = floor(low / step + 1e-9)
    found = [round(first * step, 12)]
    while found[-1] < high - 1e-9 * step:
        found.append(round((first + len(found)) * step, 12))
    return found
