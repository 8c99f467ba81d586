"""Tasks that rank the passages of each query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from paretoformer.evaluators.common.remark import Remark
from paretoformer.evaluators.common.statistics import ndcg_of_queries
from paretoformer.evaluators.common.target import Target
from paretoformer.evaluators.data.examples import Examples, Form, Labels, SplitName
from paretoformer.evaluators.data.table import DataError
from paretoformer.evaluators.data.workload import Encoded, Workload
from paretoformer.evaluators.tasks.labels import numbers_of
from paretoformer.evaluators.tasks.text import TextTask

LEAST_QUERIES = 2
"""Minimum number of queries in a scored split: one query has no interval."""


class PassageOrder(TextTask):
    """Rows of a query (`data.text`), a passage (`data.text_pair`) and its relevance, 0 or more.

    All rows of a query are in one split, so a split may be smaller than requested. Only queries
    with several passages, at least one of them relevant, are scored.
    """

    scores: ClassVar[tuple[str, ...]] = ("ndcg", "mrr")
    more_scores: ClassVar[tuple[str, ...]] = ()
    guessed = False  # its config is that of a regression or an embedder
    form: ClassVar[Form] = "ranking"
    texts_of_row: ClassVar[int] = 1
    """Encoded texts per row, which share the row's label."""

    def encode(
        self, splits: Mapping[SplitName, Examples], tokenizer: Any, config: Any, target: Target
    ) -> Workload:
        """Labels are (texts, 2): relevance, and query number in the split."""
        workload = super().encode(splits, tokenizer, config, target)
        for name in ("search", "confirm"):
            if name in splits and splits[name].labelled:
                _check_order(name, workload.splits[name].labels[:: self.texts_of_row])
        return workload

    def rows(
        self, examples: Examples, tokenizer: Any, target: Target
    ) -> tuple[list[Encoded], np.ndarray]:
        rows, relevance = super().rows(examples, tokenizer, target)
        queries = [examples.texts[i - i % self.texts_of_row] for i in range(len(rows))]
        numbers = {text: number for number, text in enumerate(dict.fromkeys(queries))}
        of_rows = [numbers[text] for text in queries]
        return rows, np.array([relevance, of_rows], dtype=np.float64).T

    def read_labels(self, labels: Sequence[Any], config: Any) -> Labels:
        relevances = numbers_of(labels, self.name)
        if any(relevance < 0 for relevance in relevances.values):
            raise DataError("a relevance is below 0: it is 0 for a passage that is not relevant.")
        return relevances

    def doubts(self, answers: np.ndarray, labels: np.ndarray, config: Any) -> list[Remark]:
        answers, labels = self.scored(answers, labels)
        if not _scored_queries(labels):
            return []
        given, turned = (ndcg_of_queries(labels, order).mean() for order in (answers, -answers))
        if given > turned:
            return []
        return [
            Remark(
                "The order in which the uncompressed model puts the passages of training queries "
                f"is no better than the opposite one (nDCG@10 {given:.2f} and {turned:.2f}). Is it "
                "the fine-tuned model, and is a high relevance a good one?",
                doubt=True,
            )
        ]


def _check_order(name: str, labels: np.ndarray) -> None:
    """Raises DataError if a split has too few queries that can be scored."""
    if (count := _scored_queries(labels)) < LEAST_QUERIES:
        raise DataError(
            f"the split {name!r} has {count or 'no'} query with several passages, one of them "
            f"relevant (above 0) and one less so, and an order is scored on {LEAST_QUERIES} or "
            f"more: raise data.{name}_examples, or add queries."
        )


def _scored_queries(labels: np.ndarray) -> int:
    """labels: (rows, 2)."""
    return len(ndcg_of_queries(labels, labels[:, 0]))
