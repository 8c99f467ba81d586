"""Matthews' correlation coefficient of labels and answers."""

from __future__ import annotations

import numpy as np

from paretoformer.evaluators.metrics.registry import register
from paretoformer.evaluators.metrics.score import Score


class Matthews(Score):
    """1 where all answers are right, 0 where they tell nothing of the labels; 0 with one class too.

    Source: Matthews 1975, Comparison of the predicted and observed secondary structure of T4 phage
    lysozyme; for several classes Gorodkin 2004.
    """

    name = "matthews"
    unit = "correlation"
    requirement = "matthews>=dense-0.02"

    def score(self, labels: np.ndarray, answers: np.ndarray) -> float:
        from sklearn.metrics import matthews_corrcoef  # a second in every worker process

        if len(np.union1d(labels, answers)) < 2:  # it is 0 then, of which scikit-learn warns
            return 0.0
        return float(matthews_corrcoef(labels, answers))


register(Matthews())
