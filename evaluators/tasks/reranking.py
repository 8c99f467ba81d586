"""Task `reranking`: the relevance of each passage to its query, as from cross-encoders."""

from __future__ import annotations

from typing import Any

import torch

from paretoformer.evaluators.tasks.queries import PassageOrder
from paretoformer.evaluators.tasks.task import register
from paretoformer.evaluators.tasks.text_regression import TextRegression


class Reranking(PassageOrder, TextRegression):
    """A classifier of one class, on pairs of query and passage."""

    name = "reranking"
    tag = "text-ranking"
    supervised = False  # relevance is of a query's passages, which are not in one batch

    def loss(self, output: Any, labels: torch.Tensor) -> torch.Tensor:
        """A random projection of the outputs: their right scale is unknown."""
        return self.answers.probe(output, torch.Generator().manual_seed(0), {})


register(Reranking())
