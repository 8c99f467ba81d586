"""Evidence: what a run's own trials say about its numbers, and about what was worth doing.

Functions of the rows of `trials.parquet` and `front.parquet`; nothing here is measured again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import kendalltau

from paretoformer.search.front import hypervolume, nondominated
from paretoformer.search.record import HALVES
from paretoformer.spaces.candidate import Candidate

Facts = Mapping[str, Any]
"""Metadata of the Parquet files."""


def indicators(facts: Facts) -> list[str]:
    """The metrics that say what a model costs, in the order of the files."""
    return [name for name, metric in facts["metrics"].items() if metric["direction"] == "minimize"]


def shrinkage(front: pd.DataFrame, facts: Facts) -> dict[str, float]:
    """By how much the search saw each metric better than confirmation: the winner's curse.

    The median over the points that the search had chosen; positive is optimism. In the metric's
    unit for what is maximised, as a share of the confirmed value for a cost. Timings are compared
    as ratios to the dense model's, so a machine that changed its pace does not count.

    front: every row of `front.parquet`.
    """
    dense = front[front["role"] == "dense"].iloc[0]
    points = front[(front["role"] != "dense") & (front["state"] == "complete")]
    found = {}
    for name, metric in facts["metrics"].items():
        seen, confirmed = points[f"search_{name}"], points[name]
        if metric["direction"] == "maximize":
            found[name] = float((seen - confirmed).median()) if len(points) else np.nan
            continue
        if f"{name}_samples" in front.columns:
            seen, confirmed = seen / dense[f"search_{name}"], confirmed / dense[name]
        found[name] = float((confirmed / seen - 1).median()) if len(points) else np.nan
    return found


def rank_agreement(trials: pd.DataFrame, facts: Facts) -> pd.DataFrame:
    """Kendall's tau-b between every two cost indicators, over the complete trials.

    Dehghani et al. 2022, The Efficiency Misnomer (arXiv:2110.12894): indicators of cost rank models
    differently, so none of them may stand for the others.
    """
    names = indicators(facts)
    done = trials[trials["state"] == "complete"]
    matrix = pd.DataFrame(np.eye(len(names)), index=names, columns=names)
    for row in names:
        for column in names:
            if row != column:
                matrix.loc[row, column] = float(kendalltau(done[row], done[column]).statistic)
    return matrix


def timeline(rows: pd.DataFrame) -> pd.DataFrame:
    """One row for each evaluation of these trials: trial, half, host, process, started, ended."""
    parts = []
    for half in HALVES:
        names = {f"{half}_{key}": key for key in ("host", "process", "started", "ended")}
        part = rows[["trial", *names]].rename(columns=names).dropna()
        parts.append(part.assign(half=half))
    return pd.concat(parts, ignore_index=True)


def overlaps(evaluations: pd.DataFrame) -> int:
    """Pairs of a timing and another evaluation on its host at the same time; 0 by the lease.

    evaluations: as `timeline` gives them.
    """
    found = 0
    for index, timing in evaluations[evaluations["half"] == "timing"].iterrows():
        other = evaluations.drop(index)
        other = other[other["host"] == timing["host"]]
        beside = (other["started"] < timing["ended"]) & (timing["started"] < other["ended"])
        found += int(beside.sum())
    return found


@dataclass(frozen=True)
class Misled:
    """Pairs of candidates of which the one with fewer operations ran slower.

    pairs: all pairs that differ in operations and clearly in latency: their intervals are apart.
    slower: how many of these ran against the count. worst: the (trial of fewer operations, trial of
    more, its latency over the other's) with the largest ratio.
    """

    pairs: int
    slower: int
    worst: tuple[int, int, float] | None


def misled_by_flops(trials: pd.DataFrame) -> Misled:
    """How often fewer floating-point operations meant more time."""
    done = trials[trials["state"] == "complete"]
    flops = done["flops"].to_numpy()
    latency, low, high = (done[f"latency_ms{end}"].to_numpy() for end in ("", "_low", "_high"))
    fewer = flops[:, None] < flops[None]
    slower = low[:, None] > high[None]
    faster = high[:, None] < low[None]
    wrong = fewer & slower
    worst = None
    if wrong.any():
        ratios = np.where(wrong, latency[:, None] / latency[None], 0)
        i, j = np.unravel_index(int(ratios.argmax()), ratios.shape)
        numbers = done["trial"].to_numpy()
        worst = (int(numbers[i]), int(numbers[j]), float(ratios[i, j]))
    return Misled(int((fewer & (slower | faster)).sum()), int(wrong.sum()), worst)


@dataclass(frozen=True)
class Contribution:
    """What the trials that use a technique add to the front.

    trials: how many use it. hypervolume: of the front without them, as a share of the whole one's.
    """

    technique: str
    trials: int
    hypervolume: float


def contributions(trials: pd.DataFrame, facts: Facts) -> list[Contribution]:
    """Hypervolume of the front without head pruning, and without each mechanism.

    Objectives are scaled to the range of the complete trials; the reference is its worst corner.
    """
    done = trials[trials["state"] == "complete"].reset_index(drop=True)
    objectives: Sequence[str] = facts["objectives"]
    directions = [facts["metrics"][name]["direction"] for name in objectives]
    values = done[list(objectives)].to_numpy(dtype=float)
    span = np.ptp(values, axis=0)
    scaled = (values - values.min(axis=0)) / np.where(span > 0, span, 1)
    reference = np.array([0.0 if each == "maximize" else 1.0 for each in directions])

    def volume(keep: np.ndarray) -> float:
        chosen = scaled[keep]
        return hypervolume(chosen[nondominated(chosen, directions)], directions, reference)

    candidates = [Candidate.from_json(text) for text in done["candidate"]]
    uses = {"head pruning": [c.heads.total < c.heads.layers * c.heads.heads for c in candidates]}
    names = {choice.name for c in candidates for choice in c.attention} - {"full"}
    for name in sorted(names):
        uses[name] = [any(choice.name == name for choice in c.attention) for c in candidates]
    whole = volume(np.ones(len(done), dtype=bool)) or 1.0
    return [
        Contribution(name, sum(used), volume(~np.array(used)) / whole)
        for name, used in uses.items()
    ]
