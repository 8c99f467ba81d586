"""The front in a terminal: a small scatter of plain characters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paretoformer.search.records.facts import RunFacts
from paretoformer.search.report.cells import number
from paretoformer.search.report.scale import Scale

if TYPE_CHECKING:
    import pandas as pd

SIGNS = {"dominated": "x", "alternative": "=", "tied": "~", "front": "o", "dense": "D"}
"""Role -> its sign; a later one covers an earlier one."""
HEIGHT = 16
MARGIN = 10
"""Characters left of the plot."""


def terminal_plot(frame: pd.DataFrame, facts: RunFacts, width: int = 80) -> str:
    """The first objective against the second.

    frame: every row of `front.parquet`.
    """
    quality, cost = facts.objectives[:2]
    shown = frame[frame[quality].notna() & frame[cost].notna()]
    x = Scale.of(shown[cost], ratios=True)
    y = Scale.of(shown[quality], ratios=facts.metrics[quality].direction == "minimize")
    columns = max(20, width - MARGIN - 2)
    cells = [[" "] * columns for _ in range(HEIGHT)]
    for role, sign in SIGNS.items():
        for _, row in shown[shown["role"] == role].iterrows():
            across = round(x.share(row[cost]) * (columns - 1))
            cells[round((1 - y.share(row[quality])) * (HEIGHT - 1))][across] = sign
    rows = zip(_left(y), cells, strict=True)
    unit = f"{cost} ({facts.metrics[cost].unit}{', logarithmic' if x.log else ''})"
    roles = set(shown["role"])
    return "\n".join(
        [
            quality,
            *(f"{value}|{''.join(row)}".rstrip() for value, row in rows),
            f"{'':>{MARGIN}}+{'-' * columns}",
            _below(x, columns),
            f"{unit:>{MARGIN + columns + 1}}",
            "  ".join(f"{sign} {role}" for role, sign in SIGNS.items() if role in roles),
        ]
    )


def _left(scale: Scale) -> list[str]:
    """The values of the ticks, each in the line where it lies."""
    lines = [" " * MARGIN] * HEIGHT
    for value in scale.ticks():
        lines[round((1 - scale.share(value)) * (HEIGHT - 1))] = f"{number(value):>{MARGIN - 1}} "
    return lines


def _below(scale: Scale, columns: int) -> str:
    """The same in a row, where they do not touch."""
    row = [" "] * (columns + MARGIN + 8)
    free = 0
    for value in scale.ticks():
        text = number(value)
        start = MARGIN + 1 + round(scale.share(value) * (columns - 1)) - len(text) // 2
        if start >= free:
            row[start : start + len(text)] = text
            free = start + len(text) + 1
    return "".join(row).rstrip()
