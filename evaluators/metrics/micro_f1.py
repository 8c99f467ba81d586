"""Micro F1, of several labels for each text."""

from __future__ import annotations

import numpy as np

from paretoformer.evaluators.metrics.registry import register
from paretoformer.evaluators.metrics.score import Score


class MicroF1(Score):
    """Harmonic mean of precision and recall over all pairs of a text and a class."""

    name = "micro_f1"
    unit = "fraction"
    requirement = "micro_f1>=dense-0.01"

    def score(self, labels: np.ndarray, answers: np.ndarray) -> float:
        from sklearn.metrics import f1_score  # a second in every worker process

        return float(f1_score(labels, answers, average="micro", zero_division=0))


register(MicroF1())
