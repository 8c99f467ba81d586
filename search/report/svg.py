"""Altair charts as SVG for the page, without scripts.

A mark shows its description under the pointer, and may be a link. Colours are CSS variables, so
that charts follow the page's light or dark theme. Vega itself would add 1 MB to the page.
"""

from __future__ import annotations

import re
from typing import Any

import altair as alt
import vl_convert

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
CONFIG: dict[str, Any] = {
    "background": "var(--back)",
    "autosize": {"type": "fit", "contains": "padding"},
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": "var(--quiet)",
        "titleColor": "var(--quiet)",
        "gridColor": "var(--line)",
        "domain": False,
        "ticks": False,
        "tickCount": 6,
        "labelPadding": 6,
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
    },
    "axisX": {"titleAnchor": "end"},
    "axisY": {"titleAngle": 0, "titleAlign": "left", "titleY": -12},
    "legend": {
        "orient": "top",
        "title": None,
        "labelColor": "var(--quiet)",
        "labelFontSize": 12,
        "labelLimit": 0,
        "columnPadding": 32,  # the reader's font may be wider
        "offset": 28,
        "symbolOpacity": 1,
    },
}


def draw(chart: alt.Chart | alt.LayerChart) -> str:
    """The chart as an SVG element of the page."""
    svg = vl_convert.vegalite_to_svg(chart.to_dict(), config=CONFIG)
    svg = re.sub(r'xlink:href="[^"#]*#', 'href="#', svg)  # vl-convert prepends an address
    labelled = r'<path aria-label="([^"]+)"([^>]*)/>'
    return re.sub(labelled, r'<path aria-label="\1"\2><title>\1</title></path>', svg)


def in_light_colours(svg: str) -> str:
    """A chart for use outside the page, where no style sheet defines the variables."""
    return re.sub(r"var\(--(\w+)\)", lambda match: LIGHT[match[1]], svg)


def css_variables(colours: dict[str, str]) -> str:
    return " ".join(f"--{name}: {colour};" for name, colour in colours.items())
