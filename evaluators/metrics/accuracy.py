"""Accuracy: the share of examples with the right label."""

from __future__ import annotations

import numpy as np

from paretoformer.evaluators.common.measurement import Measurement
from paretoformer.evaluators.common.statistics import wilson_interval
from paretoformer.evaluators.metrics.bench import Bench
from paretoformer.evaluators.metrics.metric import Quality
from paretoformer.evaluators.metrics.predictions import predictions
from paretoformer.evaluators.metrics.registry import register


class Accuracy(Quality):
    """Share of right labels, with the 95% Wilson interval (Wilson 1927).

    Samples: 1 for each right example, else 0, in order.
    """

    name = "accuracy"
    unit = "fraction"
    requirement = "accuracy>=dense-0.01"

    def measure(self, bench: Bench) -> Measurement:
        labels = np.asarray(bench.split.labels)
        samples = predictions(bench) == labels
        right = int(samples.sum())
        low, high = wilson_interval(right, len(labels))
        scores = tuple(samples.astype(float).tolist())
        return Measurement(right / len(labels), low, high, self.unit, samples=scores)


register(Accuracy())
