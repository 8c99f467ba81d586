"""Evidence: conclusions about a run's numbers and techniques, from its own trials.

Functions of the rows of `trials.parquet` and `front.parquet`; nothing is measured again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import kendalltau

from paretoformer.evaluators.outcome import Phase
from paretoformer.search.records.disturbance import undisturbed
from paretoformer.search.records.dominance import hypervolume, nondominated
from paretoformer.search.records.facts import RunFacts
from paretoformer.search.records.record import SPAN, span_column
from paretoformer.spaces.candidate import Candidate


def shrinkage(front: pd.DataFrame, facts: RunFacts) -> dict[str, float]:
    """How much better the search saw every metric than confirmation did: the winner's curse.

    The median over the points that the search chose; positive is optimism. In the metric's unit for
    a quality, as a share of the confirmed value for a cost. Timings are compared as ratios to the
    dense model's, so a change of the machine's pace has no effect, and without those that were
    confirmed while other work ran.

    front: all rows of `front.parquet`.
    """
    dense = front[front["role"] == "dense"].iloc[0]
    complete = front[(front["role"] != "dense") & (front["state"] == "complete")]
    found = {}
    for name, metric in facts.metrics.items():
        points = undisturbed(complete, [name])
        seen, confirmed = points[f"search_{name}"], points[name]
        if metric.role == "quality":
            sign = 1 if metric.direction == "maximize" else -1
            found[name] = float(sign * (seen - confirmed).median()) if len(points) else np.nan
            continue
        if f"{name}_samples" in front.columns:
            seen, confirmed = seen / dense[f"search_{name}"], confirmed / dense[name]
        found[name] = float((confirmed / seen - 1).median()) if len(points) else np.nan
    return found


def rank_agreement(trials: pd.DataFrame, facts: RunFacts) -> pd.DataFrame:
    """Kendall's tau-b between all pairs of cost indicators, over the complete trials.

    Dehghani et al. 2022, The Efficiency Misnomer (arXiv:2110.12894): indicators of cost rank models
    differently, so none can replace the others. NaN with fewer than two trials.
    """
    names = facts.costs
    done = trials[trials["state"] == "complete"]
    matrix = pd.DataFrame(np.eye(len(names)), index=names, columns=names)
    for row in names:
        for column in names:
            if row == column:
                continue
            if len(done) < 2:
                matrix.loc[row, column] = np.nan
            else:
                matrix.loc[row, column] = float(kendalltau(done[row], done[column]).statistic)
    return matrix


def timeline(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per job of these trials: trial, phase, host, process, started, ended."""
    parts = [pd.DataFrame(columns=["trial", *SPAN, "phase"])]
    for phase in Phase:
        names = {span_column(phase, key): key for key in SPAN}
        if names.keys() <= set(rows):  # else the run is older than this phase
            part = rows[["trial", *names]].rename(columns=names).dropna()
            parts.append(part.assign(phase=phase.value))
    return pd.concat([part for part in parts if len(part)] or parts, ignore_index=True)


@dataclass(frozen=True)
class Misled:
    """Pairs of candidates in which the one with fewer operations was slower.

    pairs: all pairs that differ in operations and whose latency intervals are disjoint.
    slower: those in which fewer operations took longer. worst: (trial with fewer operations, trial
    with more, ratio of their latencies), with the largest ratio.
    """

    pairs: int
    slower: int
    worst: tuple[int, int, float] | None


def misled_by_flops(trials: pd.DataFrame) -> Misled:
    """Compare the order by floating-point operations with the order by latency."""
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
    """The contribution of a technique's trials to the front.

    trials: how many use it. hypervolume: of the front without them, as a share of the whole.
    """

    technique: str
    trials: int
    hypervolume: float


def contributions(trials: pd.DataFrame, facts: RunFacts) -> list[Contribution]:
    """Hypervolume of the search's front without every technique in turn.

    Objectives are scaled to the range of the complete trials; the reference is its worst corner.
    """
    done = trials[trials["state"] == "complete"].reset_index(drop=True)
    objectives: Sequence[str] = facts.objectives
    directions = [facts.metrics[name].direction for name in objectives]
    values = done[list(objectives)].to_numpy(dtype=float)
    least = np.nanmin(values, axis=0)
    span = np.nanmax(values, axis=0) - least
    scaled = (values - least) / np.where(span > 0, span, 1)
    reference = np.array([0.0 if direction == "maximize" else 1.0 for direction in directions])

    def volume(keep: np.ndarray) -> float:
        chosen = scaled[keep]
        return hypervolume(chosen[nondominated(chosen, directions)], directions, reference)

    used = [Candidate.from_json(text).techniques for text in done["candidate"]]
    whole = volume(np.ones(len(done), dtype=bool)) or 1.0
    found = []
    for name in dict.fromkeys(name for names in used for name in names):
        uses = np.array([name in names for names in used])
        found.append(Contribution(name, int(uses.sum()), volume(~uses) / whole))
    return found
