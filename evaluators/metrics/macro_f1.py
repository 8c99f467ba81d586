"""Macro F1: the mean over classes, so that a rare class counts as much as a frequent one."""

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


register(MacroF1())
