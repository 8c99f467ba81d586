"""Rows of a query, a passage and its relevance, as tasks that order passages read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from paretoformer.evaluators.common.remark import Remark
from paretoformer.evaluators.common.statistics import ndcg_of_queries
from paretoformer.evaluators.data.examples import Examples, Labels, SplitName
from paretoformer.evaluators.data.table import DataError
from paretoformer.evaluators.tasks.labels import numbers_of

LEAST_QUERIES = 2
"""The fewest queries of a split that is scored: the score of one query has no interval."""


def relevance_of(labels: Sequence[Any], task: str) -> Labels:
    """Raises DataError where a label is no number, or below 0."""
    found = numbers_of(labels, task)
    if any(each < 0 for each in found.values):
        raise DataError("a relevance is below 0: it is 0 for a passage that is not relevant.")
    return found


def with_query_numbers(relevance: np.ndarray, queries: Sequence[str]) -> np.ndarray:
    """(rows, 2): the relevance, and the number of the query in its split."""
    numbers = {text: number for number, text in enumerate(dict.fromkeys(queries))}
    return np.array([relevance, [numbers[text] for text in queries]], dtype=np.float64).T


def check_order(
    splits: Mapping[SplitName, Examples], labels: Mapping[SplitName, np.ndarray]
) -> None:
    """labels: of each split, (rows, 2).

    Raises:
        DataError: a split that is scored has too few queries with passages to put in order.
    """
    for name in ("search", "confirm"):
        if name not in labels or not splits[name].labelled:
            continue
        count = len(_scored_queries(labels[name]))
        if count < LEAST_QUERIES:
            raise DataError(
                f"the split {name!r} has {count or 'no'} query with several passages, one of them "
                f"relevant (above 0) and one less so, and an order is scored on {LEAST_QUERIES} "
                f"or more: raise data.{name}_examples, or add queries."
            )


def doubts_about_order(answers: np.ndarray, labels: np.ndarray) -> list[Remark]:
    """answers: (rows,), of the uncompressed model. labels: (rows, 2)."""
    if not len(_scored_queries(labels)):
        return []
    given, turned = (ndcg_of_queries(labels, each).mean() for each in (answers, -answers))
    if given > turned:
        return []
    return [
        Remark(
            f"The order in which the uncompressed model puts the passages of training queries is "
            f"no better than the opposite one (nDCG@10 {given:.2f} and {turned:.2f}). Is it the "
            "fine-tuned model, and is a high relevance a good one?",
            doubt=True,
        )
    ]


def _scored_queries(labels: np.ndarray) -> np.ndarray:
    return ndcg_of_queries(labels, labels[:, 0])
