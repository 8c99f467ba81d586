"""Task `reranking`: how relevant each passage is to its query, as cross-encoders say it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch

from paretoformer.evaluators.common.remark import Remark
from paretoformer.evaluators.common.target import Target
from paretoformer.evaluators.data.examples import Examples, Form, Labels, SplitName
from paretoformer.evaluators.data.workload import Encoded, Workload
from paretoformer.evaluators.tasks.queries import (
    check_order,
    doubts_about_order,
    relevance_of,
    with_query_numbers,
)
from paretoformer.evaluators.tasks.task import register
from paretoformer.evaluators.tasks.text import plainly, tokenize
from paretoformer.evaluators.tasks.text_regression import TextRegression


class Reranking(TextRegression):
    """A classifier of one class, over rows of a query (`data.text`), a passage (`data.text_pair`)
    and how relevant it is: 0 or more.

    Rows of one query are in one split, so a split may be smaller than asked for. What is scored is
    the order of the passages of each query, so only queries with several passages, one of them
    relevant, count.
    """

    name = "reranking"
    tag = "text-ranking"
    scores = ("ndcg", "mrr")
    more_scores = ()
    guessed = False  # nothing tells it from a regression
    form: ClassVar[Form] = "ranking"

    def encode(
        self, splits: Mapping[SplitName, Examples], tokenizer: Any, config: Any, target: Target
    ) -> Workload:
        """Labels are (rows, 2): the relevance, and the number of the query in its split."""
        workload = tokenize(splits, tokenizer, config, target, _by_query)
        check_order(splits, {name: split.labels for name, split in workload.splits.items()})
        return workload

    def read_labels(self, labels: Sequence[Any], config: Any) -> Labels:
        return relevance_of(labels, self.name)

    def doubts(self, answers: np.ndarray, labels: np.ndarray, config: Any) -> list[Remark]:
        return doubts_about_order(answers, labels)

    def loss(self, output: Any, labels: torch.Tensor) -> torch.Tensor:
        """A random direction of the answers: on which scale they are right, nothing says."""
        return self.answers.probe(output, torch.Generator().manual_seed(0), {})


def _by_query(
    examples: Examples, tokenizer: Any, target: Target
) -> tuple[list[Encoded], np.ndarray]:
    rows, relevance = plainly(examples, tokenizer, target)
    return rows, with_query_numbers(relevance, examples.texts)


register(Reranking())
