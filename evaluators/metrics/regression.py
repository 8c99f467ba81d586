"""Regression scores: Spearman's and Pearson's correlation, mean squared error."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from scipy.stats import pearsonr

from paretoformer.evaluators.common.directions import Direction
from paretoformer.evaluators.common.statistics import rank_correlation
from paretoformer.evaluators.metrics.registry import register
from paretoformer.evaluators.metrics.score import Score


class Spearman(Score):
    """Spearman's rank correlation: 1 if predictions and labels have the same order, 0 if they are
    unrelated.

    Source: Spearman 1904, The proof and measurement of association between two things; for sentence
    embeddings Reimers et al. 2016, Task-oriented intrinsic evaluation of semantic textual
    similarity.
    """

    name = "spearman"
    unit = "correlation"
    requirement = "spearman>=dense-0.01"

    def score(self, labels: np.ndarray, answers: np.ndarray) -> float:
        return rank_correlation(labels, answers)


class Pearson(Score):
    """Pearson's correlation: 1 if the predictions are a linear function of the labels; 0 if either
    is constant."""

    name = "pearson"
    unit = "correlation"
    requirement = "pearson>=dense-0.01"

    def score(self, labels: np.ndarray, answers: np.ndarray) -> float:
        if len(labels) < 2 or np.ptp(labels) == 0 or np.ptp(answers) == 0:
            return 0.0
        return float(pearsonr(labels, answers).statistic)


class MeanSquaredError(Score):
    """Mean squared difference of predictions and labels."""

    name = "mean_squared_error"
    unit = "squared score"
    direction: ClassVar[Direction] = "minimize"
    requirement = "mean_squared_error<=1.05*dense"

    def score(self, labels: np.ndarray, answers: np.ndarray) -> float:
        from sklearn.metrics import mean_squared_error  # a second in every worker process

        return float(mean_squared_error(labels, answers))


register(Spearman())
register(Pearson())
register(MeanSquaredError())
