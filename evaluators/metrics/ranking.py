"""Ranking of the passages of a query: nDCG@10 and MRR@10."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from paretoformer.evaluators.common.measurement import Measurement
from paretoformer.evaluators.common.statistics import (
    bootstrap_interval,
    ndcg_of_queries,
    reciprocal_ranks,
)
from paretoformer.evaluators.metrics.bench import Bench
from paretoformer.evaluators.metrics.metric import Quality
from paretoformer.evaluators.metrics.predictions import predictions
from paretoformer.evaluators.metrics.registry import register


class OfQueries(Quality):
    """Mean over queries, which are the samples; the interval is a percentile bootstrap over
    them. Not measured on a single query, which has none."""

    unit = "fraction"

    @abstractmethod
    def of_queries(self, bench: Bench) -> np.ndarray:
        """(queries,)"""

    def measure(self, bench: Bench) -> Measurement | None:
        scores = self.of_queries(bench)
        if len(scores) < 2:
            return None
        low, high = bootstrap_interval(lambda rows: float(scores[rows].mean()), len(scores))
        samples = tuple(scores.tolist())
        return Measurement(float(scores.mean()), low, high, self.unit, samples=samples)


def _ranked(bench: Bench) -> tuple[np.ndarray, np.ndarray]:
    """Labels, (rows, 2), relevance and query number; and answers, (rows,)."""
    answers, labels = bench.task.scored(predictions(bench), np.asarray(bench.split.labels))
    return labels, answers


class Ndcg(OfQueries):
    """Normalised discounted cumulative gain at 10 (Järvelin and Kekäläinen 2002) with linear gain,
    as in scikit-learn."""

    name = "ndcg"
    requirement = "ndcg>=dense-0.01"

    def of_queries(self, bench: Bench) -> np.ndarray:
        return ndcg_of_queries(*_ranked(bench))


class ReciprocalRank(OfQueries):
    """Mean of 1 / rank of the first relevant passage; 0 beyond rank 10."""

    name = "mrr"
    requirement = "mrr>=dense-0.01"

    def of_queries(self, bench: Bench) -> np.ndarray:
        return reciprocal_ranks(*_ranked(bench))


register(Ndcg())
register(ReciprocalRank())
