"""The pace of a machine, told by how long the dense model takes.

Clocks, neighbours on the same host and heat change it for seconds or minutes, and a model whose
time goes into small operations is then slowed down by another factor than one of large matrix
products. On the virtual machine where this was found, dense MiniLM at 64 tokens took 14.4 or 18.8
ms for 5 to 40 seconds each, and three candidates' ratios to it moved by 4% with every change.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

TOLERANCE = 0.06
"""Two times that differ by no more than this share were taken at one pace."""
NEIGHBOURS = 2
"""Rounds on each side by which a round's pace is told: not by its own time alone, for to choose
rounds by a noisy denominator would bias their ratios."""
QUICKEST = 0.1
"""The share of all rounds that tells the fastest pace."""


def of(times: np.ndarray) -> np.ndarray:
    """The pace at each of these successive times: a running median, (rounds,)."""
    padded = np.pad(times, NEIGHBOURS, mode="edge")
    paces: np.ndarray = np.median(sliding_window_view(padded, 2 * NEIGHBOURS + 1), axis=-1)
    return paces


def held(times: np.ndarray, reference: float) -> np.ndarray:
    """Which of these successive times were taken at the reference's pace, (rounds,)."""
    return np.asarray(np.abs(of(times) / reference - 1) <= TOLERANCE)


def fastest(times: np.ndarray) -> float:
    """The typical time at the fastest pace that was held for a while."""
    paces = of(times)
    return float(np.median(times[paces <= np.quantile(paces, QUICKEST) * (1 + TOLERANCE)]))
