"""Task `reranking`: how relevant each passage is to its query, as cross-encoders say it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch

from paretoformer.evaluators.data import Examples, Form, Labels, SplitName
from paretoformer.evaluators.reading import DataError
from paretoformer.evaluators.remark import Remark
from paretoformer.evaluators.statistics import ndcg_of_queries
from paretoformer.evaluators.target import Target
from paretoformer.evaluators.tasks.task import register
from paretoformer.evaluators.tasks.text import plainly, tokenize
from paretoformer.evaluators.tasks.text_regression import TextRegression
from paretoformer.evaluators.workload import Encoded, Workload


class Reranking(TextRegression):
    """A classifier of one class, over rows of a query (`data.text`), a passage (`data.text_pair`)
    and how relevant it is: 0 or more.

    Rows of one query are in one split, so a split may be smaller than asked for. What is scored is
    the order of the passages of each query, so only queries with several passages, one of them
    relevant, count.
    """

    name = "reranking"
    scores = ("ndcg", "mrr")
    more_scores = ()
    guessed = False  # nothing tells it from a regression
    form: ClassVar[Form] = "ranking"

    def encode(
        self, splits: Mapping[SplitName, Examples], tokenizer: Any, config: Any, target: Target
    ) -> Workload:
        """Labels are (rows, 2): the relevance, and the number of the query in its split."""
        workload = tokenize(splits, tokenizer, config, target, _by_query)
        for name in ("search", "confirm"):
            labels = workload.splits[name].labels if name in splits else None
            if labels is not None and splits[name].labelled and not len(_scored_queries(labels)):
                raise DataError(
                    f"the split {name!r} has no query with several passages, one of them relevant "
                    "(above 0) and one less so: there is no order to score."
                )
        return workload

    def read_labels(self, labels: Sequence[Any], config: Any) -> Labels:
        found = super().read_labels(labels, config)
        if any(each < 0 for each in found.values):
            raise DataError("a relevance is below 0: it is 0 for a passage that is not relevant.")
        return found

    def doubts(self, answers: np.ndarray, labels: np.ndarray, config: Any) -> list[Remark]:
        if not len(_scored_queries(labels)):
            return []
        given, turned = (ndcg_of_queries(labels, each).mean() for each in (answers, -answers))
        if given > turned:
            return []
        return [
            Remark(
                f"The order in which the uncompressed model puts the passages of training queries "
                f"is no better than the opposite one (nDCG@10 {given:.2f} and {turned:.2f}). Is it "
                "the fine-tuned model, and is a high relevance a good one?",
                doubt=True,
            )
        ]

    def loss(self, output: Any, labels: torch.Tensor) -> torch.Tensor:
        """A random direction of the answers: on which scale they are right, nothing says."""
        return self.answers.probe(output, torch.Generator().manual_seed(0), {})


def _by_query(
    examples: Examples, tokenizer: Any, target: Target
) -> tuple[list[Encoded], np.ndarray]:
    rows, relevance = plainly(examples, tokenizer, target)
    numbers = {text: number for number, text in enumerate(dict.fromkeys(examples.texts))}
    queries = [numbers[text] for text in examples.texts]
    return rows, np.stack([relevance.astype(float), np.array(queries, dtype=float)], axis=1)


def _scored_queries(labels: np.ndarray) -> np.ndarray:
    return ndcg_of_queries(labels, labels[:, 0])


register(Reranking())
