"""Charts as SVG: small, sharp at any size, dark where the reader's screen is, without a script.

plotly's Python package ships its whole bundle only, 4.7 MB whatever a page draws with it; a partial
one would have to be fetched. What it gave here, this has too: a mark names its trial when the
pointer rests on it, and leads to the trial's card.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from paretoformer.search.report.cells import number
from paretoformer.search.report.scale import Scale

LIGHT = {
    "back": "#ffffff",
    "text": "#1c2733",
    "quiet": "#5b6775",
    "line": "#e1e5ea",
    "raised": "#eef4fb",
    "searched": "#b9c0c9",
    "dominated": "#dd8f8f",
    "front": "#d62728",
    "tied": "#f2a33a",
    "alternative": "#2a9134",
    "disturbed": "#9a6b00",
    "dense": "#1f77b4",
}
DARK = {
    "back": "#14181d",
    "text": "#e6eaef",
    "quiet": "#9aa6b3",
    "line": "#333b45",
    "raised": "#1c2733",
    "searched": "#566070",
    "dominated": "#8f5555",
    "front": "#ff6b61",
    "tied": "#f2b25c",
    "alternative": "#5fc96b",
    "disturbed": "#d9ab3f",
    "dense": "#5aa9e6",
}
CSS = """
.chart text { fill: var(--quiet); font: 13px system-ui, sans-serif; }
.chart .label { fill: var(--text); font-size: 11px; }
.chart .grid { stroke: var(--line); }
.chart .bars { stroke-width: 1; opacity: .5; }
.chart .many { fill: none; stroke-width: 6; stroke-linecap: round; opacity: .7; }
.chart a:hover .mark { stroke: var(--text); stroke-width: 2; }
""" + "".join(
    f".chart .{name} {{ fill: var(--{name}); stroke: var(--{name}); }}\n"
    for name in ("searched", "dominated", "front", "tied", "alternative", "disturbed", "dense")
)

FIFTHS = {
    "fifth0": "#2f7fd0",
    "fifth1": "#67a9cf",
    "fifth2": "#a3a3a3",
    "fifth3": "#ef8a62",
    "fifth4": "#c0392b",
}
"""Kinds of points from the fastest fifth to the slowest: from blue to red, told apart also by who
does not see red and green."""
CSS += "".join(f".chart .{name} {{ stroke: {colour}; }}\n" for name, colour in FIFTHS.items())

LETTER = 7.8
"""Width of a letter, about, which decides where a legend breaks."""
LABEL = (20, 12)
"""Width and height of a mark's label."""


@dataclass(frozen=True)
class Mark:
    """One point. text: shown when the pointer rests on it; bars: ends of the intervals of x and y.

    link: where it leads. label: written next to it.
    """

    x: float
    y: float
    text: str = ""
    bars: tuple[tuple[float, float], tuple[float, float]] | None = None
    link: str = ""
    label: str = ""


@dataclass(frozen=True)
class Layer:
    """Points of one kind, drawn above those of the layers before.

    kind: the class that colours them. shape: one of `SHAPES`; "" for many small dots without text.
    """

    name: str
    kind: str
    shape: str
    marks: Sequence[Mark]


SHAPES = {
    "dot": "M-3 0a3 3 0 1 0 6 0a3 3 0 1 0-6 0z",
    "circle": "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0z",
    "square": "M-5-5h10v10h-10z",
    "diamond": "M0-7l7 7l-7 7l-7-7z",
    "ring": "M-6 0a6 6 0 1 0 12 0a6 6 0 1 0-12 0zM-4 0a4 4 0 1 1 8 0a4 4 0 1 1-8 0z",
    "cross": "M-4-5l4 4l4-4l1 1l-4 4l4 4l-1 1l-4-4l-4 4l-1-1l4-4l-4-4z",
}


@dataclass(frozen=True)
class Plane:
    """The rectangle of a chart in which points lie."""

    x: Scale
    y: Scale
    left: float
    top: float
    width: float
    height: float

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where values are drawn; those beyond an end, at it."""
        return (
            self.left + self.width * self.x.clipped(x),
            self.top + self.height * (1 - self.y.clipped(y)),
        )

    def holds(self, mark: Mark) -> bool:
        return self.x.holds(mark.x) and self.y.holds(mark.y)


def scatter(
    layers: Sequence[Layer],
    x: Scale,
    y: Scale,
    names: tuple[str, str],
    size: tuple[int, int] = (480, 360),
    *,
    legend: bool = True,
) -> str:
    """A chart of points; names: of the axes x and y."""
    width, height = size
    keys = _legend(layers, width) if legend else []
    top = 22 + 18 * len(keys)
    plane = Plane(x, y, 60, top, width - 72, height - top - 42)
    parts = [
        *(_row(row, 14 + 18 * index) for index, row in enumerate(keys)),
        _axes(plane, names),
        *(_layer(layer, plane) for layer in layers),
    ]
    return svg(parts, size, f"{names[1]} against {names[0]}")


def svg(parts: Iterable[str], size: tuple[int, int], title: str) -> str:
    width, height = size
    return (
        f'<svg class="chart" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'
    )


def standalone(chart: str) -> str:
    """A chart as a file of its own: in the light colours, which every viewer understands."""
    css = re.sub(r"var\(--(\w+)\)", lambda match: LIGHT[match[1]], CSS)
    back = f'<rect width="100%" height="100%" fill="{LIGHT["back"]}"/>'
    return re.sub(r"(<svg[^>]*>)", rf"\1<style>{css}</style>{back}", chart, count=1)


def variables(colours: dict[str, str]) -> str:
    """As CSS declares them."""
    return " ".join(f"--{name}: {colour};" for name, colour in colours.items())


def _legend(layers: Sequence[Layer], width: int) -> list[list[Layer]]:
    """The layers that have points, in rows that fit."""
    rows: list[list[Layer]] = []
    left = 0.0
    for layer in layers:
        if not layer.marks:
            continue
        needed = 26 + LETTER * len(layer.name)
        if not rows or left + needed > width:
            rows.append([])
            left = 0.0
        rows[-1].append(layer)
        left += needed
    return rows


def _row(layers: Sequence[Layer], y: float) -> str:
    parts, x = [], 8.0
    for layer in layers:
        drawn = _shape(layer, x, y - 4)
        parts.append(f'{drawn}<text x="{x + 10:.0f}" y="{y:.0f}">{escape(layer.name)}</text>')
        x += 26 + LETTER * len(layer.name)
    return "".join(parts)


def _axes(plane: Plane, names: tuple[str, str]) -> str:
    right, bottom = plane.left + plane.width, plane.top + plane.height
    parts, free = [], 0.0
    for value in plane.x.ticks():
        x, _ = plane.at(value, plane.y.low)
        parts.append(f'<path class="grid" d="M{x:.1f} {plane.top:.0f}V{bottom:.0f}"/>')
        half = LETTER * (len(number(value)) + 1) / 2
        if x - half >= free:  # else it would cover the label before
            parts.append(_text(x, bottom + 16, number(value), "middle"))
            free = x + half
    for value in plane.y.ticks():
        _, y = plane.at(plane.x.low, value)
        parts.append(f'<path class="grid" d="M{plane.left:.0f} {y:.1f}H{right:.0f}"/>')
        parts.append(_text(plane.left - 6, y + 4, number(value), "end"))
    parts.append(_text(right, bottom + 34, names[0], "end"))
    parts.append(_text(4, plane.top - 8, names[1], "start"))
    return "".join(parts)


def _text(x: float, y: float, text: str, anchor: str, kind: str = "") -> str:
    of_kind = f' class="{kind}"' if kind else ""
    return f'<text{of_kind} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _layer(layer: Layer, plane: Plane) -> str:
    marks = [mark for mark in layer.marks if plane.holds(mark)]
    if layer.shape:
        said = _apart(marks, plane)
        return "".join(_mark(layer, mark, plane, mark in said) for mark in marks)
    # One path of dots without length, which round ends make visible: a dozen bytes for a point.
    dots = "".join("M{:.1f} {:.1f}h0".format(*plane.at(mark.x, mark.y)) for mark in marks)
    return f'<path class="{layer.kind} many" d="{dots}"/>' if dots else ""


def _apart(marks: Sequence[Mark], plane: Plane) -> list[Mark]:
    """Those whose labels do not cover each other."""
    said: list[Mark] = []
    for mark in marks:
        x, y = plane.at(mark.x, mark.y)
        others = (plane.at(other.x, other.y) for other in said)
        if all(abs(x - left) > LABEL[0] or abs(y - top) > LABEL[1] for left, top in others):
            said.append(mark)
    return said


def _mark(layer: Layer, mark: Mark, plane: Plane, labelled: bool) -> str:
    x, y = plane.at(mark.x, mark.y)
    title = f"<title>{escape(mark.text)}</title>" if mark.text else ""
    label = _text(x + 7, y - 6, mark.label, "start", "label") if labelled and mark.label else ""
    drawn = f"<g>{title}{_bars(layer, mark, plane)}{_shape(layer, x, y)}{label}</g>"
    return f'<a href="{escape(mark.link)}">{drawn}</a>' if mark.link else drawn


def _shape(layer: Layer, x: float, y: float) -> str:
    path = SHAPES[layer.shape or "circle"]
    return f'<path class="{layer.kind} mark" transform="translate({x:.1f} {y:.1f})" d="{path}"/>'


def _bars(layer: Layer, mark: Mark, plane: Plane) -> str:
    """The intervals, where they are known and have a width."""
    if mark.bars is None or not all(map(math.isfinite, (*mark.bars[0], *mark.bars[1]))):
        return ""
    (x_low, x_high), (y_low, y_high) = mark.bars
    left, y = plane.at(x_low, mark.y)
    right, _ = plane.at(x_high, mark.y)
    x, bottom = plane.at(mark.x, y_low)
    _, top = plane.at(mark.x, y_high)
    path = f"M{left:.1f} {y:.1f}H{right:.1f}M{x:.1f} {bottom:.1f}V{top:.1f}"
    return f'<path class="{layer.kind} bars" d="{path}"/>'
