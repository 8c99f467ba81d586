"""The pace of a machine, told by how long the dense model takes.

Clocks, neighbours on the same host and heat change it for seconds or minutes, and a model whose
time goes into small operations is then slowed down by another factor than one of large matrix
products. On the virtual machine where this was found, dense MiniLM at 64 tokens took 14.4 or 18.8
ms for 5 to 40 seconds each, and three candidates' ratios to it moved by 4% with every change.
"""

from __future__ import annotations

import numpy as np

TOLERANCE = 0.06
"""Two times that differ by no more than this share were taken at one pace."""
NEIGHBOURS = 2
"""Rounds on each side by which a round's pace is told: never by its own time, for to choose rounds
by a noisy denominator would bias their ratios."""
QUICKEST = 0.25
"""The share of all rounds that the fastest pace must hold: a moment of boost is none."""


def of(times: np.ndarray) -> np.ndarray:
    """The pace at each of these successive times, the median of its nearest neighbours': (rounds,).

    times: (rounds,), more than twice NEIGHBOURS.
    """
    rounds = np.arange(len(times))
    width = 2 * NEIGHBOURS + 1
    starts = np.clip(rounds - NEIGHBOURS, 0, len(times) - width)
    around = starts[:, None] + np.arange(width)
    others = around[around != rounds[:, None]].reshape(len(times), -1)
    paces: np.ndarray = np.median(times[others], axis=-1)
    return paces


def kept(times: np.ndarray, reference: float) -> np.ndarray:
    """Which of these successive times were taken at the reference's pace, (rounds,) bool."""
    return np.asarray(np.abs(of(times) / reference - 1) <= TOLERANCE)


def fastest(times: np.ndarray) -> float:
    """The typical time at the fastest pace that was held for a while."""
    paces = of(times)
    return float(np.median(times[paces <= np.quantile(paces, QUICKEST) * (1 + TOLERANCE)]))
