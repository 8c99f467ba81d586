"""The front in a terminal: a small scatter plot of characters."""

from __future__ import annotations

import numpy as np
import pandas as pd

from paretoformer.search.records.facts import RunFacts
from paretoformer.search.report.cells import number
from paretoformer.search.report.scale import Scale

SIGNS = {"dominated": "x", "alternative": "=", "tied": "~", "front": "o", "dense": "D"}
"""Role -> its sign; later ones cover earlier ones."""
HEIGHT = 16
MARGIN = 10
"""Characters left of the plot."""
TICKS = 4
"""Labelled values of an axis."""


def terminal_plot(frame: pd.DataFrame, facts: RunFacts, width: int = 80) -> str:
    """The first objective against the second.

    frame: all rows of `front.parquet`.
    """
    quality, cost = facts.objectives[:2]
    shown = frame[frame[quality].notna() & frame[cost].notna()]
    x = Scale.of(shown[cost], ratios=True)
    y = Scale.of(shown[quality], ratios=facts.metrics[quality].direction == "minimize")
    columns = max(20, width - MARGIN - 2)
    cells = np.full((HEIGHT, columns), " ")
    for role, sign in SIGNS.items():
        for _, row in shown[shown["role"] == role].iterrows():
            cells[_at(1 - y.share(row[quality]), HEIGHT), _at(x.share(row[cost]), columns)] = sign
    unit = f"{cost} ({facts.metrics[cost].unit}{', logarithmic' if x.log else ''})"
    lines = [
        quality,
        *(f"{label:>{MARGIN}}|{''.join(row)}" for label, row in zip(_left(y), cells, strict=True)),
        f"{'':>{MARGIN}}+{'-' * columns}",
        f"{'':>{MARGIN}} {_below(x, columns)}",
        f"{unit:>{MARGIN + columns + 1}}",
        "  ".join(f"{sign} {role}" for role, sign in SIGNS.items() if role in set(shown["role"])),
    ]
    return "\n".join(line.rstrip() for line in lines)


def _at(share: float, cells: int) -> int:
    return round(share * (cells - 1))


def _left(scale: Scale) -> list[str]:
    """The label per line, empty for most."""
    lines = [""] * HEIGHT
    for share in np.linspace(0, 1, TICKS):
        lines[_at(1 - share, HEIGHT)] = f"{number(scale.value(share))} "
    return lines


def _below(scale: Scale, columns: int) -> str:
    """Labels from end to end, spaced like their values."""
    first, *between, last = (number(scale.value(share)) for share in np.linspace(0, 1, TICKS))
    room = (columns - len(first) - len(last)) // len(between)
    return first + "".join(f"{label:^{room}}" for label in between) + f"{last}"
