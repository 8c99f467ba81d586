"""When each trial ran, and where a study's time went: from the spans in its tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from paretoformer.evaluators.outcome import Phase
from paretoformer.search.report.cells import number
from paretoformer.search.report.chart import svg
from paretoformer.search.report.evidence import timeline
from paretoformer.search.report.scale import Scale

PAUSE_SECONDS = 120.0
"""When nothing ran for longer, the study was interrupted: such a pause is left out."""
WORDS = {Phase.BUILD: "build", Phase.SHARED: "score", Phase.TIMING: "time"}
"""What the lanes are called."""
MOST_NAMED = 600
"""Jobs that say which trial they were of; where there are more, none does."""
LANE, LEFT, WIDTH = 26, 52, 480


@dataclass(frozen=True)
class Spent:
    """Minutes of one part of a study: from its beginning to its end, and busy in each phase."""

    part: str
    minutes: float
    phases: dict[str, float]


def jobs(searched: pd.DataFrame, front: pd.DataFrame) -> pd.DataFrame:
    """Every job of a study, `begin` and `end` in minutes since the first, without pauses.

    Empty where the run kept no times.
    """
    parts = {"search": timeline(searched), "confirmation": timeline(front)}
    found = [each.assign(part=name) for name, each in parts.items() if len(each)]
    return _without_pauses(pd.concat(found, ignore_index=True)) if found else pd.DataFrame()


def _without_pauses(found: pd.DataFrame) -> pd.DataFrame:
    ordered = found.sort_values("started", ignore_index=True)
    ordered["ended"] = ordered[["started", "ended"]].max(axis=1)  # clocks are set back at times
    first = ordered["started"].iloc[0]
    idle_since = ordered["ended"].cummax().shift(fill_value=first)
    gaps = (ordered["started"] - idle_since).clip(lower=0)
    cut = first + gaps.where(gaps > PAUSE_SECONDS, 0).cumsum()
    begin, end = ((ordered[name] - cut) / 60 for name in ("started", "ended"))
    return ordered.assign(begin=begin, end=end)


def spent(found: pd.DataFrame) -> list[Spent]:
    """Where the time of these jobs went, part by part."""
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


def timeline_chart(found: pd.DataFrame) -> str:
    """A lane for each phase, a bar for each job; confirmation in its own colour."""
    bottom = 8 + LANE * len(Phase)
    scale = Scale(0.0, float(found["end"].max()) or 1.0)
    named = len(found) <= MOST_NAMED
    parts = [_lane(word, index) for index, word in enumerate(WORDS.values())]
    parts += [_job(row, scale, named) for row in found.itertuples()]
    parts += [_tick(value, _x(scale, value), bottom) for value in scale.ticks()]
    parts.append(f'<text x="{LEFT - 6}" y="{bottom + 14}" text-anchor="end">min</text>')
    return svg(parts, (WIDTH, bottom + 24), "when each trial was built, scored and timed")


def _x(scale: Scale, minutes: float) -> float:
    return LEFT + (WIDTH - LEFT - 12) * scale.clipped(minutes)


def _lane(word: str, index: int) -> str:
    y = 8 + LANE * index
    line = f'<path class="grid" d="M{LEFT} {y + LANE - 4}H{WIDTH - 12}"/>'
    return f'{line}<text x="{LEFT - 6}" y="{y + 15}" text-anchor="end">{word}</text>'


def _job(row: Any, scale: Scale, named: bool) -> str:
    phase = Phase(row.phase)
    begin, end = _x(scale, row.begin), _x(scale, row.end)
    y = 8 + LANE * list(WORDS).index(phase)
    kind = "dense" if row.part == "search" else "front"
    where = f'x="{begin:.1f}" y="{y}" width="{max(0.6, end - begin):.1f}" height="{LANE - 7}"'
    if not named:
        return f'<rect class="{kind} job" {where}/>'
    seconds = number(60 * (row.end - row.begin))
    title = f"trial {row.trial}, {row.part}: {WORDS[phase]}, {seconds} s"
    return f'<rect class="{kind} job" {where}><title>{title}</title></rect>'


def _tick(value: float, x: float, bottom: float) -> str:
    return f'<text x="{x:.1f}" y="{bottom + 14}" text-anchor="middle">{number(value)}</text>'
