"""Selection: the best row of a front by one metric, under requirements on others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from paretoformer.search.records import disturbance
from paretoformer.search.records.errors import NoAnswer, UserError
from paretoformer.search.records.facts import RunFacts
from paretoformer.search.records.requirement import Requirement
from paretoformer.spaces.common.registry import did_you_mean

if TYPE_CHECKING:
    import pandas as pd

ELIGIBLE = ("front", "tied", "alternative", "dense")
"""Roles that may be an answer."""


@dataclass(frozen=True)
class Selected:
    """A row, and how many with better numbers were timed while other work ran."""

    row: pd.Series
    passed_over: int


@dataclass(frozen=True)
class Selection:
    """The answer, and the fastest uncompressed model under the same requirements.

    alternative: None in a run without alternatives.
    """

    answer: Selected
    alternative: Selected | None


def select(
    frame: pd.DataFrame,
    facts: RunFacts,
    minimize: str | None = None,
    require: Sequence[str] | None = None,
) -> Selection:
    """Arguments and errors as for `load_best`. frame: all rows of `front.parquet`."""
    metric = minimize or facts.timing
    texts = facts.requirements if require is None else require
    requirements = [Requirement.parse(text) for text in texts]
    names = [metric, *(requirement.metric for requirement in requirements)]
    for name in names:
        if name not in facts.metrics:
            raise UserError(
                f"unknown metric {name!r}.{did_you_mean(name, facts.metrics)} "
                f"The run has: {', '.join(facts.metrics)}."
            )
    dense = frame[frame["role"] == "dense"].iloc[0]
    complete = frame[(frame["state"] == "complete") & frame["role"].isin(ELIGIBLE)]
    eligible = complete[complete[metric].notna()]
    if eligible.empty:
        raise NoAnswer(f"no point says its {metric}.")
    satisfying = _satisfying(eligible, dense, requirements)
    sign = -1.0 if facts.metrics[metric].direction == "maximize" else 1.0
    answer = _least(satisfying, sign * satisfying[metric], names)
    return Selection(answer, _alternative(satisfying, facts.timing))


def _satisfying(
    rows: pd.DataFrame, dense: pd.Series, requirements: Sequence[Requirement]
) -> pd.DataFrame:
    """The rows that satisfy all requirements. Raises NoAnswer, naming the nearest, if none does."""
    short = np.array([_shortfall(row, dense, requirements) for _, row in rows.iterrows()])
    if not (short == 0).any():
        raise NoAnswer(_nearest(rows.iloc[int(np.argmin(short))], dense, requirements))
    satisfying: pd.DataFrame = rows.loc[short == 0]
    return satisfying


def _shortfall(row: pd.Series, dense: pd.Series, requirements: Sequence[Requirement]) -> float:
    """Infinite if a runtime cannot measure the metric."""
    total = sum(r.shortfall(row[r.metric], dense[r.metric]) for r in requirements)
    return float("inf") if np.isnan(total) else float(total)


def _least(rows: pd.DataFrame, costs: pd.Series, timings: Sequence[str]) -> Selected:
    """The row of least cost, if possible among those timed alone."""
    sure = disturbance.undisturbed(rows, timings)
    eligible = costs.loc[(rows if sure.empty else sure).index]
    best = int(np.argmin(eligible))
    return Selected(rows.loc[eligible.index[best]], int((costs < eligible.iloc[best]).sum()))


def _alternative(satisfying: pd.DataFrame, timing: str) -> Selected | None:
    if not (satisfying["role"] == "alternative").any():
        return None
    uncut = satisfying[satisfying["role"].isin(["alternative", "dense"])]
    return _least(uncut, uncut[timing], [timing])


def _nearest(row: pd.Series, dense: pd.Series, requirements: Sequence[Requirement]) -> str:
    missed = [
        f"{r.metric} {row[r.metric]:.4g} where {r.text} asks for "
        f"{r.operator} {r.bound(dense[r.metric]):.4g}"
        for r in requirements
        if r.shortfall(row[r.metric], dense[r.metric]) > 0
    ]
    return (
        f"no point satisfies the requirement. Nearest: trial {row['trial']}, {'; '.join(missed)}."
    )
