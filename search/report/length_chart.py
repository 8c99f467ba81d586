"""Latency by length: the answer, where texts of several lengths were timed."""

from __future__ import annotations

import re
from collections.abc import Iterator

import altair as alt
import pandas as pd

from paretoformer.search.records.disturbance import conditions_of
from paretoformer.search.records.errors import NoAnswer, UserError
from paretoformer.search.records.facts import LATENCY, RunFacts
from paretoformer.search.records.selection import select
from paretoformer.search.report.cells import cells, number
from paretoformer.search.report.front_chart import KINDS, Side
from paretoformer.search.report.scale import Scale
from paretoformer.spaces.candidate import Candidate

AT_LENGTH = re.compile(r"ms_at_(\d+)")


def by_length(frame: pd.DataFrame, facts: RunFacts) -> pd.DataFrame:
    """Times of the uncompressed model, the best alternative and the answer of `best`.

    Columns: kind, name, tokens, ms. Empty if one length was timed, or if there is no answer.
    """
    times = [
        {"kind": kind, "name": name, "tokens": int(found[1]), "ms": ms}
        for kind, name, row in _compared(frame, facts)
        for condition, ms in conditions_of(row, LATENCY).items()
        if (found := AT_LENGTH.fullmatch(condition))
    ]
    points = pd.DataFrame(times, columns=["kind", "name", "tokens", "ms"])
    return points if points["tokens"].nunique() > 1 else points[:0]


def _compared(frame: pd.DataFrame, facts: RunFacts) -> Iterator[tuple[str, str, pd.Series]]:
    """Kind, name and row of each line; no row twice."""
    try:
        found = select(frame, facts)
    except (NoAnswer, UserError):
        return
    dense = frame[frame["role"] == "dense"].iloc[0]
    yield "dense", f"uncompressed, torch {facts.study['target']['dtype']}", dense
    other, answer = found.alternative, found.answer.row
    if other and other.row["role"] != "dense":
        runtime = ", ".join(cells(Candidate.from_json(other.row["candidate"])).values())
        yield "alternative", f"best alternative, {runtime}", other.row
    if answer["role"] not in ("dense", "alternative"):
        yield "front", f"answer, trial {answer['trial']}", answer


def length_chart(points: pd.DataFrame) -> alt.LayerChart:
    """A line per model. points: of `by_length`."""
    x, y = (Side(name, name, Scale.of(points[name], ratios=True)) for name in ("tokens", "ms"))
    names = dict(zip(points["name"], points["kind"], strict=True))
    key = alt.Legend(columns=1)
    colours = alt.Scale(domain=list(names), range=[f"var(--{kind})" for kind in names.values()])
    shapes = alt.Scale(domain=list(names), range=[KINDS[kind][1] for kind in names.values()])
    text = points["name"] + ", " + points["tokens"].astype(str) + " tokens: "
    marks = alt.Chart(points.assign(text=text + points["ms"].map(number) + " ms")).encode(
        x.x("tokens"), y.y("ms"), alt.Color("name:N", scale=colours, legend=key)
    )
    dots = marks.mark_point(filled=True, opacity=1, size=60)
    dots = dots.encode(alt.Shape("name:N", scale=shapes, legend=key), description="text")
    return alt.LayerChart(layer=[marks.mark_line(aria=False), dots], width=480, height=260)


def length_sentence(points: pd.DataFrame) -> str:
    """Both ends of every line. points: of `by_length`."""
    ends = points.sort_values("tokens").groupby("name", sort=False)["ms"].agg(["first", "last"])
    times = [
        f"{number(low)} to {number(high)} ms ({name})" for name, low, high in ends.itertuples()
    ]
    shortest, longest = points["tokens"].min(), points["tokens"].max()
    return f"From {shortest} to {longest} tokens, a forward pass takes {', '.join(times)}."
