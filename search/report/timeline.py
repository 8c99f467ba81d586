"""The timeline of trials, and a study's time by part and phase, from the spans in its tables."""

from __future__ import annotations

from dataclasses import dataclass

import altair as alt
import pandas as pd

from paretoformer.evaluators.outcome import Phase
from paretoformer.search.report.cells import number
from paretoformer.search.report.evidence import timeline

PAUSE_SECONDS = 120.0
"""A longer pause means that the study was interrupted; it is cut out."""
WORDS = {Phase.BUILD: "build", Phase.SHARED: "score", Phase.TIMING: "time"}
"""Names of the lanes."""
MOST_DRAWN = 600
"""Jobs with their own bars; if there are more, they are joined."""
SLOTS = 300
"""Slots of the whole time, within which jobs are joined."""


@dataclass(frozen=True)
class Spent:
    """One part of a study: minutes from begin to end, and busy minutes per phase."""

    part: str
    minutes: float
    phases: dict[str, float]


def jobs(searched: pd.DataFrame, front: pd.DataFrame) -> pd.DataFrame:
    """Every job of a study, with `begin` and `end` in minutes since the first, without pauses.

    Empty if the run kept no times.
    """
    parts = {"search": timeline(searched), "confirmation": timeline(front)}
    found = [rows.assign(part=name) for name, rows in parts.items() if len(rows)]
    return _without_pauses(pd.concat(found, ignore_index=True)) if found else pd.DataFrame()


def _without_pauses(found: pd.DataFrame) -> pd.DataFrame:
    ordered = found.sort_values("started", ignore_index=True)
    ordered["ended"] = ordered[["started", "ended"]].max(axis=1)  # a clock may be set back
    first = ordered["started"].iloc[0]
    idle_since = ordered["ended"].cummax().shift(fill_value=first)
    gaps = (ordered["started"] - idle_since).clip(lower=0)
    cut = first + gaps.where(gaps > PAUSE_SECONDS, 0).cumsum()
    begin, end = ((ordered[name] - cut) / 60 for name in ("started", "ended"))
    return ordered.assign(begin=begin, end=end)


def spent(found: pd.DataFrame) -> list[Spent]:
    """Minutes of these jobs, by part and phase."""
    return [
        Spent(
            str(part),
            float(rows["end"].max() - rows["begin"].min()),
            {WORDS[phase]: _minutes(rows[rows["phase"] == phase.value]) for phase in Phase},
        )
        for part, rows in found.groupby("part", sort=False)
    ]


def _minutes(rows: pd.DataFrame) -> float:
    return float((rows["end"] - rows["begin"]).sum())


def timeline_chart(found: pd.DataFrame) -> alt.Chart:
    """A lane per phase, a bar per job, coloured by part."""
    bars = found.assign(phase=found["phase"].map({phase.value: WORDS[phase] for phase in Phase}))
    bars["text"] = [
        f"trial {trial}, {part}: {phase}, {number(60 * minutes)} s"
        for trial, part, phase, minutes in zip(
            bars["trial"], bars["part"], bars["phase"], bars["end"] - bars["begin"], strict=True
        )
    ]
    bars = bars[["part", "phase", "begin", "end", "text"]]
    colour = alt.Scale(domain=["search", "confirmation"], range=["var(--dense)", "var(--front)"])
    drawn = bars if len(bars) <= MOST_DRAWN else _joined(bars)
    marks = alt.Chart(drawn, width=480, height=170).mark_bar(opacity=0.75)
    chart: alt.Chart = marks.encode(
        alt.X("begin:Q", title="minutes"),
        alt.X2("end"),
        alt.Y("phase:N", title=None, sort=list(WORDS.values())),
        alt.Color("part:N", scale=colour),
        description="text",
    )
    return chart


def _joined(bars: pd.DataFrame) -> pd.DataFrame:
    """One bar for the jobs of a phase that begin within the same slot."""
    slot = (bars["begin"] / bars["end"].max() * SLOTS).astype(int)
    groups = bars.groupby(["part", "phase", slot.rename("slot")])
    joined = groups.agg(begin=("begin", "min"), end=("end", "max"), jobs=("text", "size"))
    return joined.reset_index().assign(text=lambda rows: rows["jobs"].map("{} jobs".format))
