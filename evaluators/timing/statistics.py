"""Statistics of a timing: its median, its interval, and whether it is stable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import bootstrap

from paretoformer.evaluators.measurement import Measurement
from paretoformer.evaluators.timing import pace

ROUNDS = 8
"""The fewest rounds of blocks."""
SESSION = 0.01
"""Standard deviation between two timings of one model at different times, as a share, which no
number of rounds in one of them shows: `benchmarks/repeatability.py`."""
PACE_SLOPE = 0.1
"""The same for a timing at another pace than its reference's, for each e-fold between the two: the
ratios of candidates of small operations to dense moved by 4% when the pace changed by 28%."""
RESAMPLES = 999
UNSTABLE_SPREAD = 0.10
"""Interquartile range over the median, above which a timing is not stable."""
UNSTABLE_RANGE = 1.10
"""Largest over smallest sample, above which a timing is not stable."""


@dataclass(frozen=True)
class Timed:
    """The rounds of one timing that count.

    samples: their milliseconds. held: whether they were at the reference's pace. slowdown: the
    dense model's time in them over the reference. off_pace: the share of all rounds that were at
    another pace. between: standard deviation, as a share, of what a timing at another time would
    differ by.
    """

    samples: np.ndarray
    held: bool = True
    slowdown: float = 1.0
    off_pace: float = 0.0
    between: float = SESSION

    @classmethod
    def at_pace(
        cls, samples: np.ndarray, dense: np.ndarray, reference: float, session: float = SESSION
    ) -> Timed:
        """The rounds in which the dense model kept the reference's pace, or all, if too few did.

        samples, dense: (rounds,). session: `between` at the reference's pace.
        """
        kept = pace.kept(dense, reference)
        held = int(kept.sum()) >= ROUNDS
        ratios = (dense[kept] if held else dense) / reference
        apart = 0.0 if held else float(np.abs(np.log(ratios)).mean())
        return cls(
            samples=samples[kept] if held else samples,
            held=held,
            slowdown=float(np.median(ratios)),
            off_pace=1 - float(kept.mean()),
            between=float(np.hypot(session, PACE_SLOPE * apart)),
        )


def median_interval(samples: np.ndarray) -> tuple[float, float, float]:
    """(low, median, high): the 95% interval of a median between two order statistics.

    It needs no resampling, so it can be asked after every sample. Source: Conover 1999, Practical
    Nonparametric Statistics, section 3.2; ranks n/2 ∓ 1.96 √n/2.
    """
    ordered = np.sort(samples)
    count = len(ordered)
    reach = 0.98 * count**0.5
    low = max(int(np.floor(count / 2 - reach)) - 1, 0)
    high = min(int(np.ceil(count / 2 + reach)), count - 1)
    return float(ordered[low]), float(np.median(ordered)), float(ordered[high])


def summary(timed: Timed, conditions: Mapping[str, float] | None = None) -> Measurement:
    """The median of the samples with its interval.

    It is stable when the samples are close, and the reference's pace was held.
    """
    samples = timed.samples
    interval = bootstrap(
        (samples,),
        np.median,
        n_resamples=RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    median = float(np.median(samples))
    between = 1.96 * median * timed.between
    below, above = (2**0.5 * abs(end - median) for end in (interval.low, interval.high))
    quartiles = np.quantile(samples, (0.25, 0.75))
    spread = float(quartiles[1] - quartiles[0]) / median
    close = spread <= UNSTABLE_SPREAD and samples.max() <= UNSTABLE_RANGE * samples.min()
    paces = {"slowdown": round(timed.slowdown, 3), "off_pace": round(timed.off_pace, 3)}
    return Measurement(
        value=median,
        low=max(0.0, median - float(np.hypot(below, between))),
        high=median + float(np.hypot(above, between)),
        unit="ms",
        samples=tuple(samples.tolist()),
        stable=bool(close and timed.held),
        conditions={**(conditions or {}), **paces},
    )
