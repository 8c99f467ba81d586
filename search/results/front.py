"""The front: the non-dominated points, and how much of the objective space they dominate."""

from __future__ import annotations

from collections.abc import Sequence

import moocore
import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from paretoformer.evaluators.directions import Direction

Values = npt.NDArray[np.float64]
"""Objective values: (points, objectives)."""


def nondominated(values: Values, directions: Sequence[Direction]) -> npt.NDArray[np.bool_]:
    """Which points no other point dominates; equal points do not dominate each other.

    One point dominates another when it is at least as good in every objective and better in one. A
    point with a NaN is not on the front and dominates nothing.

    values: (points, objectives). Returns (points,) bool.
    """
    costs = as_costs(values, directions)
    mask: npt.NDArray[np.bool_] = np.logical_not(np.isnan(costs).any(axis=1))
    if mask.any():
        # Dominance asks only which is larger, so ranks serve; moocore aborts on infinities.
        ranks = np.stack([rankdata(column, method="dense") for column in costs[mask].T], axis=1)
        mask[mask] = moocore.is_nondominated(ranks, keep_weakly=True)
    return mask


def clearly_dominated(
    values: Values, lows: Values, highs: Values, directions: Sequence[Direction]
) -> npt.NDArray[np.bool_]:
    """Which points are dominated by one whose interval is better, apart from theirs, somewhere.

    A point that is dominated by its value alone, while all intervals overlap, may be as good. A
    point with a NaN is clearly dominated, and dominates nothing.

    values, lows, highs: (points, objectives), the intervals' ends as measured. Returns (points,).
    """
    costs = as_costs(values, directions)
    ends = as_costs(lows, directions), as_costs(highs, directions)
    best, worst = np.minimum(*ends), np.maximum(*ends)
    other, one = costs[:, None], costs[None]
    dominates = (other <= one).all(axis=2) & (other < one).any(axis=2)
    apart = (worst[:, None] < best[None]).any(axis=2)
    clearly: npt.NDArray[np.bool_] = np.any(dominates & apart, axis=0)
    missing: npt.NDArray[np.bool_] = np.any(np.isnan(costs), axis=1)
    return np.logical_or(clearly, missing)


def hypervolume(values: Values, directions: Sequence[Direction], reference: Values) -> float:
    """The volume that the points dominate, up to `reference` (objectives,)."""
    costs = as_costs(values, directions)
    costs = costs[~np.isnan(costs).any(axis=1)]
    ref = as_costs(reference[None], directions)[0]
    return float(moocore.hypervolume(costs, ref=ref)) if len(costs) else 0.0


def as_costs(values: Values, directions: Sequence[Direction]) -> Values:
    """The same points with every objective to be minimised."""
    signs = np.array([-1.0 if direction == "maximize" else 1.0 for direction in directions])
    costs: Values = np.asarray(values, dtype=np.float64).reshape(-1, len(signs)) * signs
    return costs
