"""Similarity to the dense model's outputs, without labels: fidelity and divergence."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from paretoformer.evaluators.common.directions import Direction
from paretoformer.evaluators.common.measurement import Measurement
from paretoformer.evaluators.common.statistics import wilson_interval
from paretoformer.evaluators.metrics.bench import Bench
from paretoformer.evaluators.metrics.metric import Quality
from paretoformer.evaluators.metrics.predictions import compared
from paretoformer.evaluators.metrics.registry import register


class Fidelity(Quality):
    """Mean similarity to the dense model's outputs. Classes: share of equal predictions, with the
    95% Wilson interval. Otherwise with 1.96 standard errors: mean cosine of vectors, share of equal
    tokens, exp(-d²/2) of the difference d of numbers.

    For classes, accuracy differs from the dense model's by at most 1 - fidelity.
    """

    name = "fidelity"
    unit = "fraction"
    requirement = "fidelity>=dense-0.05"
    likeness = True

    def measure(self, bench: Bench) -> Measurement:
        likeness = compared(bench).likeness
        if np.isin(likeness, (0.0, 1.0)).all():
            low, high = wilson_interval(int(likeness.sum()), len(likeness))
        else:
            low, high = _interval(likeness)
        return Measurement(float(likeness.mean()), low, min(high, 1.0), self.unit)


class Divergence(Quality):
    """Mean Kullback-Leibler divergence from the dense model's distributions; for vectors 1 -
    cosine, for numbers half the squared difference.

    It also distinguishes candidates with equal predictions, so it steers a search better than a
    score that changes in steps of one example. The interval is 1.96 standard errors.
    """

    name = "divergence"
    unit = "nats"
    direction: ClassVar[Direction] = "minimize"
    likeness = True

    def measure(self, bench: Bench) -> Measurement:
        divergence = compared(bench).divergence
        low, high = _interval(divergence)
        return Measurement(float(divergence.mean()), max(0.0, low), high, self.unit)


def _interval(samples: np.ndarray) -> tuple[float, float]:
    """1.96 standard errors on each side of the mean."""
    mean = float(samples.mean())
    error = 1.96 * samples.std(ddof=1) / np.sqrt(len(samples)) if len(samples) > 1 else mean
    return mean - float(error), mean + float(error)


register(Fidelity())
register(Divergence())
