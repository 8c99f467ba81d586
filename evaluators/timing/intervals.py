"""Statistics of a timing: rounds that count, mean, interval, stability."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.stats import t as student

from paretoformer.evaluators.common.measurement import Measurement

ROUNDS = 8
"""Minimum number of rounds of a mean."""
USUAL = 0.3
"""Quantile of a model's block times that is its usual time."""
DELAYED = 1.5
"""A round is left out if one of its blocks takes more than this multiple of its usual time.

A thread that waits for another process delays a block by a factor of 3 to 15. Smaller differences
are noise; leaving out their rounds would bias the ratios.
"""
SESSION = 0.03
"""Relative standard deviation of the difference between two timings of one model at different
times, beyond the scatter of rounds. The speed of a shared machine changes within seconds and
minutes, and kernels slow down by different factors. A fresh process adds nothing
(`benchmarks/repeatability.py`)."""
SLOWER = 1.1
"""Slowdown of the dense model beyond which the interval is widened by it: kernels do not slow down
alike. On an EPYC at 1.19 times the dense model's time, cut models in ONNX Runtime int8 took 1.36
times as long as that says."""
SCATTER = 0.15
"""Maximum relative standard deviation of the rounds of a stable timing."""
MOSTLY = 0.55
"""Minimum share of rounds that count in a stable timing. With both limits, 9 of 10 timings of a
study are stable on a quiet machine, and 1 of 10 next to a process that is always busy."""


@dataclass(frozen=True)
class Reference:
    """The latency of the model that a candidate alternates with.

    between: its relative standard deviation between timings at different times; 0 for the dense
    model, in whose latencies all others are given. alike: whether the kernels of both slow down by
    the same factor on a busy host.
    """

    ms: float
    between: float = 0.0
    alike: bool = False

    @classmethod
    def of(cls, baseline: Measurement) -> Reference:
        """A model in a compiled runtime, for candidates in one."""
        reach = (baseline.high - baseline.low) / 2
        return cls(baseline.value, reach / 1.96 / baseline.value, alike=True)


@dataclass(frozen=True)
class Timed:
    """The rounds of one timing that count.

    samples: milliseconds. left_out: share of rounds that were delayed. slowdown: the time of the
    model that alternated with it, in the rounds that count, divided by its reference. between:
    relative standard deviation between timings at different times.
    """

    samples: np.ndarray
    left_out: float = 0.0
    slowdown: float = 1.0
    between: float = SESSION

    @classmethod
    def of_rounds(cls, other: np.ndarray, candidate: np.ndarray, reference: Reference) -> Timed:
        """Use the rounds that count, or all if fewer than two count.

        other, candidate: block times, (rounds, 2), the model of `reference` first.
        """
        counts = undelayed(other, candidate)
        kept = counts if counts.sum() >= 2 else np.ones_like(counts)
        slowdown = float(other[kept].mean()) / reference.ms
        unlike = np.log(slowdown) if slowdown > SLOWER and not reference.alike else 0.0
        return cls(
            samples=candidate[kept].sum(axis=1) / other[kept].sum(axis=1) * reference.ms,
            left_out=1 - float(counts.mean()),
            slowdown=slowdown,
            between=float(np.linalg.norm((SESSION, unlike, reference.between))),
        )

    @cached_property
    def mean(self) -> float:
        return float(self.samples.mean())

    @cached_property
    def reach(self) -> float:
        """Half the 95% interval of the mean, from Student's t, in milliseconds."""
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
        """Whether few rounds were delayed and the others scatter little."""
        count = len(self.samples)
        if count < ROUNDS // 2 or 1 - self.left_out < MOSTLY:
            return False
        return bool(self.samples.std(ddof=1) <= SCATTER * self.mean)


def undelayed(*blocks: np.ndarray) -> np.ndarray:
    """(rounds,) bool: rounds without a delayed block.

    blocks: for each model, (rounds,) or (rounds, blocks per round).
    """
    shaped = [times.reshape(len(times), -1) for times in blocks]
    on_time = [(times <= DELAYED * np.quantile(times, USUAL)).all(axis=1) for times in shaped]
    return np.asarray(np.logical_and.reduce(on_time))


def summary(
    timed: Timed, conditions: Mapping[str, float] | None = None, pace: str = "slowdown"
) -> Measurement:
    """Mean, with the 95% interval for a repeated timing: the sampling errors of both, plus the
    variation between sessions. pace: the condition that holds `Timed.slowdown`."""
    reach = float(np.hypot(2**0.5 * timed.reach, 1.96 * timed.between * timed.mean))
    paces = {pace: round(timed.slowdown, 3), "left_out": round(timed.left_out, 3)}
    return Measurement(
        value=timed.mean,
        low=max(0.0, timed.mean - reach),
        high=timed.mean + reach,
        unit="ms",
        samples=tuple(timed.samples.tolist()),
        stable=timed.is_stable,
        conditions={**(conditions or {}), **paces},
    )
