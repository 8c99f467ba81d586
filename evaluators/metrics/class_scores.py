"""Classification scores: macro F1, micro F1 and Matthews correlation."""

from __future__ import annotations

import numpy as np

from paretoformer.evaluators.metrics.registry import register
from paretoformer.evaluators.metrics.score import Score


class MacroF1(Score):
    """Mean over classes of the harmonic mean of precision and recall.

    Classes that occur neither in labels nor in predictions are left out.
    """

    name = "macro_f1"
    unit = "fraction"
    requirement = "macro_f1>=dense-0.01"

    def score(self, labels: np.ndarray, answers: np.ndarray) -> float:
        from sklearn.metrics import f1_score  # a second in every worker process

        empty = 0.0 if labels.ndim == 1 else np.nan
        f1 = float(f1_score(labels, answers, average="macro", zero_division=empty))
        return 1.0 if np.isnan(f1) else f1  # neither labels nor predictions


class MicroF1(Score):
    """Harmonic mean of precision and recall over all pairs of text and class."""

    name = "micro_f1"
    unit = "fraction"
    requirement = "micro_f1>=dense-0.01"

    def score(self, labels: np.ndarray, answers: np.ndarray) -> float:
        from sklearn.metrics import f1_score  # a second in every worker process

        return float(f1_score(labels, answers, average="micro", zero_division=0))


class Matthews(Score):
    """Matthews correlation: 1 if all predictions are right, 0 if they are unrelated to the labels
    or there is only one class.

    Source: Matthews 1975, Comparison of the predicted and observed secondary structure of T4 phage
    lysozyme; for several classes Gorodkin 2004.
    """

    name = "matthews"
    unit = "correlation"
    requirement = "matthews>=dense-0.02"

    def score(self, labels: np.ndarray, answers: np.ndarray) -> float:
        from sklearn.metrics import matthews_corrcoef  # a second in every worker process

        if len(np.union1d(labels, answers)) < 2:  # scikit-learn returns 0 too, with a warning
            return 0.0
        return float(matthews_corrcoef(labels, answers))


register(MacroF1())
register(MicroF1())
register(Matthews())
