"""Scores of classes: macro F1, micro F1 and Matthews' correlation."""

from __future__ import annotations

import numpy as np

from paretoformer.evaluators.metrics.registry import register
from paretoformer.evaluators.metrics.score import Score


class MacroF1(Score):
    """Mean over the classes of the harmonic mean of precision and recall.

    A class that is neither a label nor an answer is left out.
    """

    name = "macro_f1"
    unit = "fraction"
    requirement = "macro_f1>=dense-0.01"

    def score(self, labels: np.ndarray, answers: np.ndarray) -> float:
        """Of several labels a row, too, what is neither a label nor an answer is left out."""
        from sklearn.metrics import f1_score  # a second in every worker process

        empty = 0.0 if labels.ndim == 1 else np.nan
        found = float(f1_score(labels, answers, average="macro", zero_division=empty))
        return 1.0 if np.isnan(found) else found  # nothing to find, and nothing found


class MicroF1(Score):
    """Harmonic mean of precision and recall over all pairs of a text and a class."""

    name = "micro_f1"
    unit = "fraction"
    requirement = "micro_f1>=dense-0.01"

    def score(self, labels: np.ndarray, answers: np.ndarray) -> float:
        from sklearn.metrics import f1_score  # a second in every worker process

        return float(f1_score(labels, answers, average="micro", zero_division=0))


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


register(MacroF1())
register(MicroF1())
register(Matthews())
