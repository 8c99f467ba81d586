"""Charts of the front: one per cost objective, and one per cost indicator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import altair as alt
import numpy as np
import pandas as pd

from paretoformer.search.records import disturbance
from paretoformer.search.records.facts import RunFacts
from paretoformer.search.report.cells import number
from paretoformer.search.report.scale import Scale

KINDS = {
    "searched": ("searched", "circle", 25),
    "dominated": ("dominated when confirmed", "cross", 70),
    "tied": ("tied", "circle", 80),
    "front": ("front", "circle", 80),
    "alternative": ("uncompressed, other runtime", "square", 80),
    "dense": ("dense", "diamond", 110),
    "disturbed": ("timed beside other work", "triangle-down", 80),
}
"""Role, or "disturbed" -> name in the legend, shape and area; later ones are drawn on top."""
BLUE_TO_RED = ["#2f7fd0", "#a3a3a3", "#c0392b"]
"""From the fastest to the slowest; readable with red-green blindness."""
MOST_DRAWN = 300
"""Limit for the search's trials in one chart; if there are more, an even sample."""
LABEL = (0.045, 0.05)
"""Width and height of a trial's number, as shares of the chart."""
LARGE = 10_000
"""Above this, an axis writes 20M for 20,000,000."""
ENDS = ("low", "high")


@dataclass(frozen=True)
class Side:
    """A metric along one side of a chart."""

    metric: str
    title: str
    scale: Scale

    @classmethod
    def of(cls, metric: str, values: pd.Series[float], facts: RunFacts) -> Side:
        """The range of these values; logarithmic only for a metric to minimise."""
        found = facts.metrics[metric]
        scale = Scale.of(values, ratios=found.direction == "minimize")
        return cls(metric, f"{metric} ({found.unit})", scale)

    def x(self, field: str = "x") -> alt.X:
        return alt.X(f"{field}:Q", title=self.title, scale=self._scale(), axis=self._axis())

    def y(self, field: str = "y") -> alt.Y:
        return alt.Y(f"{field}:Q", title=self.title, scale=self._scale(), axis=self._axis())

    def _scale(self) -> alt.Scale:
        domain = [self.scale.low, self.scale.high]
        kind: Literal["log", "linear"] = "log" if self.scale.log else "linear"
        return alt.Scale(type=kind, domain=domain, nice=False, zero=False, clamp=True)

    def _axis(self) -> alt.Axis:
        return alt.Axis(format="~s") if self.scale.high > LARGE else alt.Axis()


def front_charts(
    frame: pd.DataFrame, searched: pd.DataFrame, facts: RunFacts
) -> list[alt.LayerChart]:
    """The first objective against every other one; the front above the searched trials.

    The range is that of the published points; searched trials outside it are not drawn.

    frame: all rows of `front.parquet`. searched: all rows of `trials.parquet`.
    """
    quality, *costs = facts.objectives
    done = as_confirmed(sample(searched), frame, facts).assign(kind="searched")
    rows = pd.concat([done, frame.assign(kind=_kinds(frame, facts))], ignore_index=True)
    shown = frame[frame["role"] != "dominated"]
    y = Side.of(quality, pd.concat([shown[f"{quality}_{end}"] for end in ENDS]), facts)
    return [_front_chart(rows, Side.of(cost, shown[cost], facts), y) for cost in costs]


def indicator_charts(searched: pd.DataFrame, facts: RunFacts) -> list[alt.Chart]:
    """The trade-off by every cost indicator; the colour is the measured latency."""
    quality = facts.objectives[0]
    done = sample(searched)
    done = done.assign(kind="searched", rank=done["latency_ms"].rank(pct=True))
    y = Side.of(quality, done[quality], facts)
    return [_indicator_chart(done, Side.of(cost, done[cost], facts), y) for cost in facts.costs]


def sample(searched: pd.DataFrame) -> pd.DataFrame:
    """At most `MOST_DRAWN` of the complete trials, evenly spread over the search."""
    done = searched[searched["state"] == "complete"]
    if len(done) <= MOST_DRAWN:
        return done
    return done.iloc[np.linspace(0, len(done) - 1, MOST_DRAWN, dtype=int)]


def as_confirmed(searched: pd.DataFrame, frame: pd.DataFrame, facts: RunFacts) -> pd.DataFrame:
    """The searched trials with their timings scaled to the confirmed time of the dense model.

    A machine can be slower during the confirmation than during the search; ratios to the dense
    model, timed in alternation with every candidate, do not change.
    """
    scaled = searched.copy()
    dense = frame[frame["role"] == "dense"].iloc[0]
    for name in facts.metrics:
        if f"{name}_samples" in searched.columns:
            scaled[name] *= dense[name] / dense[f"search_{name}"]
    return scaled


def _kinds(frame: pd.DataFrame, facts: RunFacts) -> pd.Series[str]:
    """Key of `KINDS` per row: its role, or "disturbed" if one of its objectives is."""
    sure = frame.index.isin(disturbance.undisturbed(frame, facts.objectives).index)
    return frame["role"].where(sure | (frame["role"] == "dominated"), "disturbed")


def _front_chart(rows: pd.DataFrame, x: Side, y: Side) -> alt.LayerChart:
    points = _points(rows, x, y)
    has_card = ~points["kind"].isin(["searched", "dominated"])
    cards = points[has_card]
    colour, shape, area = _legend(points)
    bars = alt.Chart(cards.dropna()).mark_rule(opacity=0.5, aria=False)
    bars = bars.encode(x.x(), y.y(), colour)
    marks = (x.x(), y.y(), colour, shape, area, alt.Description("text"))
    labels = alt.Chart(_apart(cards[cards["kind"] == "front"], x.scale, y.scale))
    layers = [
        alt.Chart(points[~has_card]).mark_point(filled=True, opacity=1).encode(*marks),
        bars.encode(x.x("x_low"), alt.X2("x_high")),
        bars.encode(y.y("y_low"), alt.Y2("y_high")),
        alt.Chart(cards).mark_point(filled=True, opacity=1).encode(*marks, href="link"),
        labels.mark_text(dx=9, dy=-9, color="var(--text)").encode(x.x(), y.y(), text="trial:N"),
    ]
    return alt.LayerChart(layer=layers, width=480, height=370)


def _indicator_chart(done: pd.DataFrame, x: Side, y: Side) -> alt.Chart:
    points = _points(done, x, y).assign(rank=done["rank"])
    colour = alt.Color("rank:Q", scale=alt.Scale(range=BLUE_TO_RED), legend=None)
    marks = alt.Chart(points, width=260, height=200).mark_circle(size=25, opacity=0.8)
    chart: alt.Chart = marks.encode(x.x(), y.y(), colour, description="text")
    return chart


def _points(rows: pd.DataFrame, x: Side, y: Side) -> pd.DataFrame:
    """The rows inside the chart: position, intervals, description, and link to the card."""
    points = rows[["trial", "kind"]].copy()
    for name, side in (("x", x), ("y", y)):
        points[name] = rows[side.metric].astype(float)
        for end in ENDS:
            points[f"{name}_{end}"] = rows[f"{side.metric}_{end}"].astype(float)
    points["name"] = points["kind"].map(lambda kind: KINDS[kind][0])
    points["text"] = [
        f"trial {trial}: {y.metric} {number(quality)}, {x.metric} {number(cost)}"
        for trial, cost, quality in zip(points["trial"], points["x"], points["y"], strict=True)
    ]
    points["link"] = "#point-" + points["trial"].astype(str)
    inside = points["x"].map(x.scale.holds) & points["y"].map(y.scale.holds)
    order = {kind: index for index, kind in enumerate(KINDS)}
    return points[inside].sort_values("kind", key=lambda kinds: kinds.map(order), kind="stable")


def _legend(points: pd.DataFrame) -> tuple[alt.Color, alt.Shape, alt.Size]:
    """Colour, shape and area by kind, as one legend of the kinds in use."""
    used = {kind: KINDS[kind] for kind in KINDS if kind in set(points["kind"])}

    def scale(values: Sequence[str | int]) -> alt.Scale:
        return alt.Scale(domain=[name for name, _, _ in used.values()], range=list(values))

    key = alt.Legend(columns=2)
    return (
        alt.Color("name:N", scale=scale([f"var(--{kind})" for kind in used]), legend=key),
        alt.Shape("name:N", scale=scale([shape for _, shape, _ in used.values()]), legend=key),
        alt.Size("name:N", scale=scale([area for _, _, area in used.values()]), legend=key),
    )


def _apart(points: pd.DataFrame, x: Scale, y: Scale) -> pd.DataFrame:
    """Points whose labels do not overlap."""
    places = list(zip(points["x"].map(x.share), points["y"].map(y.share), strict=True))
    kept: list[int] = []
    for index, (left, top) in enumerate(places):
        others = (places[other] for other in kept)
        if all(abs(left - x) > LABEL[0] or abs(top - y) > LABEL[1] for x, y in others):
            kept.append(index)
    return points.iloc[kept]
