"""The layers of a candidate as rows of the report."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

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
"""Colours of techniques, in the order in which they appear."""


@dataclass(frozen=True)
class LayerRow:
    """One layer. marks: one square per unit, filled if it is kept. colour: key of its technique.

    labels: texts. shares: kept shares of parts that may be narrower. removed: the layer is gone.
    """

    marks: tuple[bool, ...]
    colour: str
    labels: tuple[str, ...]
    shares: tuple[float, ...]
    removed: bool


def layer_rows(candidate: Candidate) -> list[LayerRow]:
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
    return dict(zip(dict.fromkeys(row.colour for row in rows), itertools.cycle(PALETTE)))
