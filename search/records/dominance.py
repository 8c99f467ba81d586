"""The front: the non-dominated points, and the hypervolume they dominate."""

from __future__ import annotations

from collections.abc import Sequence

import moocore
import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from paretoformer.evaluators.common.directions import Direction

Values = npt.NDArray[np.float64]
"""Objective values: (points, objectives)."""
AT_ONCE = 128
"""Points compared with all others at once, so that memory does not grow quadratically."""


def nondominated(values: Values, directions: Sequence[Direction]) -> npt.NDArray[np.bool_]:
    """(points,) bool: whether no other point dominates it; equal points do not dominate.

    A point dominates another if it is at least as good in every objective and better in one. A
    point with a NaN is not on the front and dominates nothing.

    values: (points, objectives).
    """
    costs = as_costs(values, directions)
    mask: npt.NDArray[np.bool_] = np.logical_not(np.isnan(costs).any(axis=1))
    if mask.any():
        # Dominance depends only on order, so ranks are enough; moocore aborts on infinities.
        ranks = np.stack([rankdata(column, method="dense") for column in costs[mask].T], axis=1)
        mask[mask] = moocore.is_nondominated(ranks, keep_weakly=True)
    return mask


def clearly_dominated(
    values: Values, lows: Values, highs: Values, directions: Sequence[Direction]
) -> npt.NDArray[np.bool_]:
    """(points,) bool: points dominated by one whose interval is disjoint and better somewhere.

    A point that is dominated by value alone, while all intervals overlap, may be as good. A point
    with a NaN is clearly dominated, and dominates nothing.

    values, lows, highs: (points, objectives), ends of the intervals as measured.
    """
    points = _points(values, lows, highs, directions)
    lost: npt.NDArray[np.bool_] = np.any(np.isnan(points[:, 0]), axis=1)
    for start in range(0, len(points), AT_ONCE):
        some = slice(start, start + AT_ONCE)
        lost[some] |= _clearly(points[:, None], points[None, some]).any(axis=0)
    return lost


def _points(values: Values, lows: Values, highs: Values, directions: Sequence[Direction]) -> Values:
    """Points with intervals, to be minimised: (points, (cost, best, worst), objectives)."""
    costs, low, high = (as_costs(numbers, directions) for numbers in (values, lows, highs))
    return np.stack((costs, np.minimum(low, high), np.maximum(low, high)), axis=1)


def _clearly(one: Values, other: Values) -> npt.NDArray[np.bool_]:
    """Whether one point clearly dominates another; both are from `_points`."""
    cost, than = one[..., 0, :], other[..., 0, :]
    dominates = (cost <= than).all(axis=-1) & (cost < than).any(axis=-1)
    apart = (one[..., 2, :] < other[..., 1, :]).any(axis=-1)
    return np.asarray(dominates & apart)


def hypervolume(values: Values, directions: Sequence[Direction], reference: Values) -> float:
    """The volume that the points dominate up to `reference` (objectives,)."""
    costs = as_costs(values, directions)
    costs = costs[~np.isnan(costs).any(axis=1)]
    ref = as_costs(reference[None], directions)[0]
    return float(moocore.hypervolume(costs, ref=ref)) if len(costs) else 0.0


def as_costs(values: Values, directions: Sequence[Direction]) -> Values:
    """The points with every objective to be minimised."""
    signs = np.array([-1.0 if direction == "maximize" else 1.0 for direction in directions])
    costs: Values = np.asarray(values, dtype=np.float64).reshape(-1, len(signs)) * signs
    return costs
