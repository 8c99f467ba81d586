"""Statistics of a timing: which rounds count, their mean, its interval, whether it is stable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.stats import t as student

from paretoformer.evaluators.measurement import Measurement

ROUNDS = 8
"""The fewest rounds of blocks that a mean is made of."""
QUICK = 0.3
"""The quantile of a model's own blocks that tells how long they take undisturbed."""
BRAKED = 1.5
"""A round does not count where a block took so many times as long as that. Who waits for a
neighbour takes several times as long, and what moves less stays in: to choose by less would choose
by noise, and bias the ratios."""
SESSION = 0.025
"""Standard deviation of the difference of two timings of one model at different times, as a share,
which no number of rounds in one of them shows: the pace of a shared machine wanders within seconds
and minutes, and does not move every kernel alike (`benchmarks/repeatability.py`). A fresh process
adds nothing to it."""
STABLE_REACH = 0.04
"""A stable timing knows its mean to this share: nine of ten do on a quiet machine."""


@dataclass(frozen=True)
class Timed:
    """The rounds of one timing that count.

    samples: their milliseconds. left_out: the share of all rounds that others held up. slowdown:
    the dense model's time in the ones that count, over its reference. between: standard deviation,
    as a share, of the difference to a timing at another time.
    """

    samples: np.ndarray
    left_out: float = 0.0
    slowdown: float = 1.0
    between: float = SESSION

    @classmethod
    def of_rounds(cls, dense: np.ndarray, candidate: np.ndarray, reference: float) -> Timed:
        """Of the rounds that count, or of all where these are too few to tell.

        dense, candidate: times of blocks, (rounds, 2). reference: the dense model's latency.
        """
        counts = unhindered(dense, candidate)
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
        """Whether enough rounds count, and the mean is known to this share of it."""
        return bool(len(self.samples) >= ROUNDS and self.reach <= share * self.mean)


def unhindered(*blocks: np.ndarray) -> np.ndarray:
    """The rounds in which no model's block took far longer than its blocks mostly do: (rounds,).

    blocks: of each model, (rounds,) or (rounds, blocks a round).
    """
    shaped = [each.reshape(len(each), -1) for each in blocks]
    quick = [(each <= BRAKED * np.quantile(each, QUICK)).all(axis=1) for each in shaped]
    return np.asarray(np.logical_and.reduce(quick))


def summary(timed: Timed, conditions: Mapping[str, float] | None = None) -> Measurement:
    """The mean of the samples, with an interval for what a second timing would give."""
    # the second timing has an error of its own, as large as this one's
    reach = float(np.hypot(2**0.5 * timed.reach, 1.96 * timed.between * timed.mean))
    paces = {"slowdown": round(timed.slowdown, 3), "left_out": round(timed.left_out, 3)}
    return Measurement(
        value=timed.mean,
        low=max(0.0, timed.mean - reach),
        high=timed.mean + reach,
        unit="ms",
        samples=tuple(timed.samples.tolist()),
        stable=timed.is_within(STABLE_REACH),
        conditions={**(conditions or {}), **paces},
    )
