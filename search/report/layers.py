"""What stays of each layer: rows for the report, and a picture for the dashboard."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape

from paretoformer.search.report.svg import LIGHT
from paretoformer.spaces.axes import axes
from paretoformer.spaces.candidate import Candidate

PALETTE = (
    "#4c78a8",
    "#f58518",
    "#54a24b",
    "#e45756",
    "#72b7b2",
    "#b279a2",
    "#9d755d",
    "#eeca3b",
    "#ff9da6",
    "#2f4b7c",
    "#8cb369",
    "#5e5e5e",
)
"""Colours of what fills the squares of a layer, in the order in which it is met."""
LINE, SQUARE, BAR, LETTER = 20, 14, 60, 7.5
"""Of the picture: height of a line, width of a square, of a bar, and about that of a letter."""
LEFT = 68


@dataclass(frozen=True)
class LayerRow:
    """One layer. marks: a square each, filled where it stays. colour: of what technique they are.

    labels: in words. shares: of what may be narrower, how much stays. removed: nothing does.
    """

    marks: tuple[bool, ...]
    colour: str
    labels: tuple[str, ...]
    shares: tuple[float, ...]
    removed: bool


def layer_rows(candidate: Candidate) -> list[LayerRow]:
    """One row a layer, from the cells of every axis."""
    columns = [axis.layer_cells(candidate[axis.name]) for axis in axes()]
    return [
        LayerRow(
            marks=next((cell.marks for cell in row if cell.marks), ()),
            colour=next((cell.colour for cell in row if cell.colour), ""),
            labels=tuple(cell.label for cell in row if cell.label),
            shares=tuple(cell.share for cell in row if cell.share is not None),
            removed=any(cell.removed for cell in row),
        )
        for row in zip(*filter(None, columns), strict=True)
    ]


def colours_of(rows: Iterable[LayerRow]) -> dict[str, str]:
    """Technique -> its colour."""
    return dict(zip(dict.fromkeys(row.colour for row in rows), itertools.cycle(PALETTE)))


def picture(candidate: Candidate) -> str:
    """The layers of one candidate, from the first to the last, as an SVG."""
    rows = layer_rows(candidate)
    colours = colours_of(rows)
    parts = [_text(8, 0, candidate.phrase)]
    parts += [part for number, row in enumerate(rows) for part in _row(number, row, colours)]
    ends = [LEFT + _width(row) for row in rows] + [16 + LETTER * len(candidate.phrase)]
    width, height = max(ends), LINE * (len(rows) + 1) + 8
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height}" '
        f'viewBox="0 0 {width:.0f} {height}"><style>text {{ font: 13px system-ui, sans-serif; '
        f"fill: {LIGHT['text']}; }}</style>"
        f'<rect width="100%" height="100%" fill="{LIGHT["back"]}"/>{"".join(parts)}</svg>'
    )


def _width(row: LayerRow) -> float:
    words = LETTER * sum(len(label) + 2 for label in row.labels)
    return SQUARE * len(row.marks) + (BAR + 8) * len(row.shares) + words + 16


def _row(number: int, row: LayerRow, colours: Mapping[str, str]) -> Iterable[str]:
    line = number + 1
    yield _text(8, line, f"layer {number}")
    if row.removed:
        yield _text(LEFT, line, "removed")
        return
    x: float = LEFT
    for kept in row.marks:
        yield _box(x, line, SQUARE - 2, SQUARE - 2, colours[row.colour] if kept else "none")
        x += SQUARE
    for share in row.shares:
        yield _box(x + 6, line, BAR, 8, LIGHT["line"])
        yield _box(x + 6, line, BAR * share, 8, LIGHT["quiet"])
        x += BAR + 8
    yield _text(x + 8, line, ", ".join(row.labels))


def _box(x: float, line: int, width: float, height: float, fill: str) -> str:
    y = LINE * line + (LINE - height) / 2
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height}" fill="{fill}" '
        f'stroke="{LIGHT["line"]}"/>'
    )


def _text(x: float, line: int, text: str) -> str:
    return f'<text x="{x:.0f}" y="{LINE * line + 15}">{escape(text)}</text>'
