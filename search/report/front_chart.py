"""The front as charts: one for each cost that it trades, and one for each indicator of cost."""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from paretoformer.search.records import disturbance
from paretoformer.search.records.facts import RunFacts
from paretoformer.search.report.cells import number
from paretoformer.search.report.chart import FIFTHS, LIGHT, Layer, Mark, scatter
from paretoformer.search.report.scale import Scale

if TYPE_CHECKING:
    import pandas as pd

SHAPES = {
    "dominated": ("dominated when confirmed", "cross"),
    "tied": ("tied", "circle"),
    "front": ("front", "circle"),
    "alternative": ("uncompressed, other runtime", "square"),
    "dense": ("dense", "diamond"),
    "disturbed": ("timed beside other work", "ring"),
}
"""Role, or that it is unsure -> its name in the legend, and its shape; later ones lie above."""
SIGNS = {"cross": "x", "circle": "o", "square": "s", "diamond": "D", "ring": "$\\circ$"}
"""Shape -> marker of matplotlib."""
MOST_NAMED = 500
"""Trials of the search that say their number; where there are more, none does."""
INDICATOR_SIZE = (300, 240)


def front_charts(frame: pd.DataFrame, searched: pd.DataFrame, facts: RunFacts) -> list[str]:
    """The first objective against each other one; the front above the searched trials.

    The range is that of the published points: what was far from them lies outside.

    frame: every row of `front.parquet`. searched: every row of `trials.parquet`.
    """
    quality, *costs = facts.objectives
    done = as_confirmed(searched[searched["state"] == "complete"], frame, facts)
    shown, kinds = frame[frame["role"] != "dominated"], _kinds(frame, facts)
    ends = [value for end in ("_low", "_high") for value in shown[quality + end].dropna()]
    y = Scale.of(ends, ratios=_is_ratio(quality, facts))
    return [
        scatter(
            [_searched(done, cost, quality), *_published(frame, kinds, cost, quality)],
            Scale.of(shown[cost].dropna(), ratios=True),
            y,
            (_axis(cost, facts), _axis(quality, facts)),
        )
        for cost in costs
    ]


def indicator_charts(searched: pd.DataFrame, facts: RunFacts) -> list[str]:
    """What each indicator of cost would have one believe of the trials; coloured by latency."""
    quality = facts.objectives[0]
    done = searched[(searched["state"] == "complete") & searched[quality].notna()]
    fifths = _fifths(done["latency_ms"].to_numpy(dtype=float))
    y = Scale.of(done[quality], ratios=_is_ratio(quality, facts))
    return [
        scatter(
            [
                Layer(kind, kind, "", _marks(done[fifths == index], name, quality))
                for index, kind in enumerate(FIFTHS)
            ],
            Scale.of(done[name].dropna(), ratios=True),
            y,
            (_axis(name, facts), quality),
            INDICATOR_SIZE,
            legend=False,
        )
        for name in facts.costs
    ]


def front_png(frame: pd.DataFrame, facts: RunFacts) -> Callable[[Path], None] | None:
    """Draws the first chart as a PNG; None where matplotlib is not installed."""
    if find_spec("matplotlib") is None:
        return None
    from matplotlib.figure import Figure

    quality, cost = facts.objectives[:2]
    figure = Figure(figsize=(7, 5), layout="constrained")
    axes: Any = figure.subplots()
    kinds = _kinds(frame, facts)
    for kind, (name, shape) in SHAPES.items():
        rows = frame[kinds == kind]
        if len(rows):
            axes.scatter(rows[cost], rows[quality], c=LIGHT[kind], marker=SIGNS[shape], label=name)
    x = Scale.of(frame[cost].dropna(), ratios=True)
    y = Scale.of(frame[quality].dropna(), ratios=_is_ratio(quality, facts))
    axes.set(xscale="log" if x.log else "linear", yscale="log" if y.log else "linear")
    axes.set_xticks(x.ticks(), [number(each) for each in x.ticks()])
    axes.set_yticks(y.ticks(), [number(each) for each in y.ticks()])
    axes.minorticks_off()
    axes.set_axisbelow(True)
    axes.set(xlabel=_axis(cost, facts), ylabel=_axis(quality, facts))
    axes.grid(color=LIGHT["line"])
    axes.legend()
    return lambda path: figure.savefig(path, format="png", dpi=200)


def _is_ratio(quality: str, facts: RunFacts) -> bool:
    """Whether a quality has no upper end, as perplexity has none: then ratios of it compare."""
    return facts.metrics[quality].direction == "minimize"


def as_confirmed(searched: pd.DataFrame, frame: pd.DataFrame, facts: RunFacts) -> pd.DataFrame:
    """The searched trials with their timings as multiples of the confirmed dense one.

    A machine can be slower in the hour of the confirmation than in that of the search; the ratios
    to the dense model, measured in alternation with each candidate, stay.
    """
    scaled = searched.copy()
    dense = frame[frame["role"] == "dense"].iloc[0]
    for name in facts.metrics:
        if f"{name}_samples" in searched.columns:
            scaled[name] *= dense[name] / dense[f"search_{name}"]
    return scaled


def _searched(done: pd.DataFrame, cost: str, quality: str) -> Layer:
    shape = "dot" if len(done) <= MOST_NAMED else ""
    return Layer("searched", "searched", shape, _marks(done, cost, quality))


def _kinds(frame: pd.DataFrame, facts: RunFacts) -> pd.Series[str]:
    """The key of `SHAPES` for each row: its role, unless one of its objectives is unsure."""
    sure = frame.index.isin(disturbance.undisturbed(frame, facts.objectives).index)
    return frame["role"].where(sure | (frame["role"] == "dominated"), "disturbed")


def _published(frame: pd.DataFrame, kinds: pd.Series[str], cost: str, quality: str) -> list[Layer]:
    layers = []
    for kind, (name, shape) in SHAPES.items():
        rows = frame[kinds == kind]
        links = kind != "dominated"  # those have no card
        layers.append(Layer(name, kind, shape, _marks(rows, cost, quality, links=links)))
    return layers


def _marks(rows: pd.DataFrame, cost: str, quality: str, *, links: bool = False) -> list[Mark]:
    """links: lead to the card of the trial, with intervals, its number next to it."""
    return [
        Mark(
            float(row[cost]),
            float(row[quality]),
            f"trial {row['trial']}: {quality} {number(row[quality])}, {cost} {number(row[cost])}",
            (_interval(row, cost), _interval(row, quality)) if links else None,
            f"#point-{row['trial']}" if links else "",
            str(row["trial"]) if row.get("role") == "front" else "",
        )
        for _, row in rows.iterrows()
        if not (_is_missing(row[cost]) or _is_missing(row[quality]))
    ]


def _interval(row: pd.Series[Any], name: str) -> tuple[float, float]:
    return float(row[f"{name}_low"]), float(row[f"{name}_high"])


def _is_missing(value: float | None) -> bool:
    return value is None or math.isnan(value)


def _fifths(values: np.ndarray) -> np.ndarray:
    """(trials,) 0 for the fastest fifth of them, 4 for the slowest."""
    bounds = np.nanquantile(values, [0.2, 0.4, 0.6, 0.8]) if len(values) else np.zeros(4)
    return np.asarray(np.searchsorted(bounds, values))


def _axis(name: str, facts: RunFacts) -> str:
    return f"{name} ({facts.metrics[name].unit})"
