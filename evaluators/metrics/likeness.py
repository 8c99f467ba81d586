"""Likeness to the dense model's own answers: fidelity and divergence, which need no labels."""

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
    """Mean likeness of the answers to the dense model's: for classes the share that is the same,
    with the Wilson interval at 95%; for vectors the mean cosine, for tokens the share of those that
    are the same, for numbers exp(-d²/2) of the difference d, with 1.96 standard errors.

    Of classes, one minus it bounds by how much accuracy can differ from the dense model's.
    """

    name = "fidelity"
    unit = "fraction"
    requirement = "fidelity>=dense-0.05"
    likeness = True

    def measure(self, bench: Bench) -> Measurement:
        found = compared(bench).likeness
        if np.isin(found, (0.0, 1.0)).all():
            low, high = wilson_interval(int(found.sum()), len(found))
        else:
            low, high = _interval(found)
        return Measurement(float(found.mean()), low, min(high, 1.0), self.unit)


class Divergence(Quality):
    """Mean Kullback-Leibler divergence of the answers' distributions from the dense model's; of
    vectors 1 - cosine, of numbers half the squared difference.

    It tells candidates apart that give the same answers, less surely: so it steers a search better
    than a score in steps of one example. The interval is 1.96 standard errors.
    """

    name = "divergence"
    unit = "nats"
    direction: ClassVar[Direction] = "minimize"
    likeness = True

    def measure(self, bench: Bench) -> Measurement:
        found = compared(bench).divergence
        low, high = _interval(found)
        return Measurement(float(found.mean()), max(0.0, low), high, self.unit)


def _interval(found: np.ndarray) -> tuple[float, float]:
    """1.96 standard errors on each side of the mean."""
    mean = float(found.mean())
    error = 1.96 * found.std(ddof=1) / np.sqrt(len(found)) if len(found) > 1 else mean
    return mean - float(error), mean + float(error)


register(Fidelity())
register(Divergence())
