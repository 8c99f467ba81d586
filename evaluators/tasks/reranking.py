"""Task `reranking`: how relevant each passage is to its query, as cross-encoders say it."""

from __future__ import annotations

from typing import Any

import torch

from paretoformer.evaluators.tasks.queries import PassageOrder
from paretoformer.evaluators.tasks.task import register
from paretoformer.evaluators.tasks.text_regression import TextRegression


class Reranking(PassageOrder, TextRegression):
    """A classifier of one class, over pairs of a query and a passage."""

    name = "reranking"
    tag = "text-ranking"

    def loss(self, output: Any, labels: torch.Tensor) -> torch.Tensor:
        """A random direction of the answers: on which scale they are right, nothing says."""
        return self.answers.probe(output, torch.Generator().manual_seed(0), {})


register(Reranking())
