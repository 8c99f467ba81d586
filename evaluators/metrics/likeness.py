"""Likeness to the dense model's own answers: fidelity and divergence, which need no labels."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from scipy.stats import binomtest

from paretoformer.evaluators.answers import compared
from paretoformer.evaluators.directions import Direction, Role
from paretoformer.evaluators.measurement import Measurement
from paretoformer.evaluators.metrics.metric import Bench, Metric
from paretoformer.evaluators.metrics.registry import register


class Fidelity(Metric):
    """Share of answers that are the dense model's, with the Wilson interval at 95%.

    One minus it bounds by how much any score of answers can differ from the dense model's.
    """

    name = "fidelity"
    unit = "fraction"
    direction: ClassVar[Direction] = "maximize"
    role: ClassVar[Role] = "quality"
    requirement = "fidelity>=dense-0.05"
    likeness = True

    def measure(self, bench: Bench) -> Measurement:
        same = compared(bench).same
        interval = binomtest(int(same.sum()), len(same)).proportion_ci(method="wilson")
        return Measurement(float(same.mean()), float(interval.low), float(interval.high), self.unit)


class Divergence(Metric):
    """Mean Kullback-Leibler divergence of the answers' distributions from the dense model's.

    It tells candidates apart that give the same answers, less surely: so it steers a search better
    than a score in steps of one example. The interval is 1.96 standard errors.
    """

    name = "divergence"
    unit = "nats"
    direction: ClassVar[Direction] = "minimize"
    role: ClassVar[Role] = "quality"
    likeness = True

    def measure(self, bench: Bench) -> Measurement:
        nats = compared(bench).nats
        mean = float(nats.mean())
        error = 1.96 * float(nats.std(ddof=1)) / np.sqrt(len(nats)) if len(nats) > 1 else mean
        return Measurement(mean, max(0.0, mean - float(error)), mean + float(error), self.unit)


register(Fidelity())
register(Divergence())
