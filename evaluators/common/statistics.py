"""Statistics that metrics and tasks share."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from scipy.stats import binomtest, bootstrap, spearmanr

RESAMPLES = 199
CUTOFF = 10
"""Passages of a query that count in nDCG@10 and MRR@10."""


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation; 0 if one of the inputs is constant."""
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(spearmanr(a, b).statistic)


def rankings(labels: np.ndarray, answers: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Relevances and predictions of each query whose passages differ in relevance.

    labels: (rows, 2), relevance and query number. answers: (rows,).
    """
    for query in np.unique(labels[:, 1]):
        rows = labels[:, 1] == query
        relevance = labels[rows, 0]
        if np.ptp(relevance) > 0:
            yield relevance, answers[rows]


def ndcg_of_queries(labels: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """(queries,) normalised discounted cumulative gain of the first 10 passages."""
    from sklearn.metrics import ndcg_score  # a second in every worker process

    scores = [ndcg_score(r[None], a[None], k=CUTOFF) for r, a in rankings(labels, answers)]
    return np.array(scores, dtype=float)


def reciprocal_ranks(labels: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """(queries,) 1 / rank of the first relevant passage; 0 beyond rank 10.

    Among passages with equal scores, irrelevant ones rank first.
    """
    ranks = []
    for relevance, of_query in rankings(labels, answers):
        best = of_query[relevance > 0].max()
        rank = 1 + int(((of_query >= best) & (relevance == 0)).sum())
        ranks.append(1 / rank if rank <= CUTOFF else 0.0)
    return np.array(ranks, dtype=float)


def wilson_interval(right: int, count: int) -> tuple[float, float]:
    """95% interval of a proportion (Wilson 1927)."""
    interval = binomtest(right, count).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def bootstrap_interval(score: Callable[[np.ndarray], float], count: int) -> tuple[float, float]:
    """Percentile bootstrap interval of a score, widened to include its value on all examples.

    score: called with example indices, (examples,). count: number of examples.
    """
    value = score(np.arange(count))
    drawn = bootstrap(
        (np.arange(count),),
        score,
        vectorized=False,
        n_resamples=RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    low, high = np.nan_to_num([drawn.low, drawn.high], nan=value)  # nan: all resamples are equal
    return min(value, float(low)), max(value, float(high))
