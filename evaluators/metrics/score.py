"""Scores of a whole split that are not a mean over its examples."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from paretoformer.evaluators.common.measurement import Measurement
from paretoformer.evaluators.common.statistics import bootstrap_interval
from paretoformer.evaluators.metrics.bench import Bench
from paretoformer.evaluators.metrics.metric import Quality
from paretoformer.evaluators.metrics.predictions import predictions


class Score(Quality):
    """A score of all labels and predictions, with a percentile bootstrap interval over examples.

    It has no samples, so it is not paired with the dense model's, and its interval is wide.
    """

    @abstractmethod
    def score(self, labels: np.ndarray, answers: np.ndarray) -> float:
        """labels, answers: (examples,), or (examples, classes) for several labels per example."""

    def measure(self, bench: Bench) -> Measurement:
        answers, labels = bench.task.scored(predictions(bench), np.asarray(bench.split.labels))
        low, high = bootstrap_interval(
            lambda rows: float(self.score(labels[rows], answers[rows])), len(labels)
        )
        return Measurement(float(self.score(labels, answers)), low, high, self.unit)
