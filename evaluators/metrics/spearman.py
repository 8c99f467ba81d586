"""Spearman's rank correlation of answers and scores, such as those of pairs of sentences."""

from __future__ import annotations

import numpy as np

from paretoformer.evaluators.common.statistics import rank_correlation
from paretoformer.evaluators.metrics.registry import register
from paretoformer.evaluators.metrics.score import Score


class Spearman(Score):
    """1 where the answers rank the examples as the scores do, 0 where they tell nothing of them.

    Source: Spearman 1904, The proof and measurement of association between two things; for
    sentence embeddings Reimers et al. 2016, Task-oriented intrinsic evaluation of semantic textual
    similarity.
    """

    name = "spearman"
    unit = "correlation"
    requirement = "spearman>=dense-0.01"

    def score(self, labels: np.ndarray, answers: np.ndarray) -> float:
        return rank_correlation(labels, answers)


register(Spearman())
