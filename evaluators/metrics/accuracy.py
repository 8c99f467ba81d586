"""Accuracy: the share of examples that the rebuilt model labels right."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from scipy.stats import binomtest

from paretoformer.evaluators.common.directions import Direction, Role
from paretoformer.evaluators.common.measurement import Measurement
from paretoformer.evaluators.metrics.bench import Bench
from paretoformer.evaluators.metrics.metric import Metric
from paretoformer.evaluators.metrics.predictions import predictions
from paretoformer.evaluators.metrics.registry import register


class Accuracy(Metric):
    """Share of right labels, with the Wilson interval at 95% (Wilson 1927).

    Its samples are the examples in order: 1 where the label is right, else 0.
    """

    name = "accuracy"
    unit = "fraction"
    direction: ClassVar[Direction] = "maximize"
    role: ClassVar[Role] = "quality"
    requirement = "accuracy>=dense-0.01"

    def measure(self, bench: Bench) -> Measurement:
        labels = np.asarray(bench.split.labels)
        samples = predictions(bench) == labels
        right = int(samples.sum())
        interval = binomtest(right, len(labels)).proportion_ci(method="wilson")
        return Measurement(
            right / len(labels),
            float(interval.low),
            float(interval.high),
            self.unit,
            samples=tuple(samples.astype(float).tolist()),
        )


register(Accuracy())
