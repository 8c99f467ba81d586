"""Statistics of a timing: which rounds count, their mean, its interval, whether it is stable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.stats import t as student

from paretoformer.evaluators.common.measurement import Measurement

ROUNDS = 8
"""The fewest rounds of blocks that a mean is made of."""
USUAL = 0.3
"""The quantile of a model's block times that counts as its usual time."""
DELAYED = 1.5
"""A round is left out if one of its blocks took more than this factor of its model's usual time.

A thread that waits for another process delays a block by a factor of 3 to 15. Smaller differences
are noise: leaving rounds out because of them would bias the ratios.
"""
SESSION = 0.03
"""Standard deviation of the difference between two timings of one model at different times, as a
share, beyond what the rounds of each explain. The pace of a shared machine changes within seconds
and minutes, and kernels differ in how much that slows them down. A fresh process adds nothing
(`benchmarks/repeatability.py`)."""
SCATTER = 0.15
"""The largest standard deviation of the rounds, as a share of their mean, of a stable timing."""
MOSTLY = 0.55
"""The share of all rounds that must count for a stable timing. With both limits nine of ten timings
of a study are stable on a quiet machine, and one of ten beside a process that is always busy."""


@dataclass(frozen=True)
class Timed:
    """The rounds of one timing that count.

    samples: milliseconds of each. left_out: share of all rounds that were delayed and do not count.
    slowdown: the dense model's time in the rounds that count, divided by its reference. between:
    standard deviation of the difference from a timing at another time, as a share.
    """

    samples: np.ndarray
    left_out: float = 0.0
    slowdown: float = 1.0
    between: float = SESSION

    @classmethod
    def of_rounds(cls, dense: np.ndarray, candidate: np.ndarray, reference: float) -> Timed:
        """Made of the rounds that count, or of all rounds if fewer than two count.

        dense, candidate: times of blocks, (rounds, 2). reference: the dense model's latency.
        """
        counts = undelayed(dense, candidate)
        kept = counts if counts.sum() >= 2 else np.ones_like(counts)
        return cls(
            samples=candidate[kept].sum(axis=1) / dense[kept].sum(axis=1) * reference,
            left_out=1 - float(counts.mean()),
            slowdown=float(dense[kept].mean()) / reference,
        )

    @cached_property
    def mean(self) -> float:
        return float(self.samples.mean())

    @cached_property
    def reach(self) -> float:
        """Half the 95% interval of the mean, by Student's t, in milliseconds."""
        count = len(self.samples)
        if count < 2:
            return float("inf")
        error = self.samples.std(ddof=1) / np.sqrt(count)
        return float(student.ppf(0.975, count - 1) * error)

    def is_within(self, share: float) -> bool:
        """Whether enough rounds count and `reach` is at most this share of the mean."""
        return bool(len(self.samples) >= ROUNDS and self.reach <= share * self.mean)

    @property
    def is_stable(self) -> bool:
        """Whether few rounds were delayed, and the others scatter little."""
        count = len(self.samples)
        if count < ROUNDS // 2 or 1 - self.left_out < MOSTLY:
            return False
        return bool(self.samples.std(ddof=1) <= SCATTER * self.mean)


def undelayed(*blocks: np.ndarray) -> np.ndarray:
    """Which rounds count: those without a delayed block, (rounds,) bool.

    blocks: of each model, (rounds,) or (rounds, blocks a round).
    """
    shaped = [each.reshape(len(each), -1) for each in blocks]
    on_time = [(each <= DELAYED * np.quantile(each, USUAL)).all(axis=1) for each in shaped]
    return np.asarray(np.logical_and.reduce(on_time))


def summary(timed: Timed, conditions: Mapping[str, float] | None = None) -> Measurement:
    """The mean of the samples, with the 95% interval of a repeated timing: the sampling errors of
    both timings, plus the variation between sessions."""
    reach = float(np.hypot(2**0.5 * timed.reach, 1.96 * timed.between * timed.mean))
    paces = {"slowdown": round(timed.slowdown, 3), "left_out": round(timed.left_out, 3)}
    return Measurement(
        value=timed.mean,
        low=max(0.0, timed.mean - reach),
        high=timed.mean + reach,
        unit="ms",
        samples=tuple(timed.samples.tolist()),
        stable=timed.is_stable,
        conditions={**(conditions or {}), **paces},
    )
