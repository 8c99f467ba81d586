"""The dense model's outputs on some texts, from which divergence is computed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from paretoformer.spaces.models.divergence import Answers
from paretoformer.spaces.models.tokens import Batch
from paretoformer.spaces.recovery.layerwise import without_cache


@dataclass(frozen=True)
class DenseAnswers:
    """answers: the kind of predictions. known: each batch, with the kept part of its output."""

    answers: Answers
    known: Sequence[tuple[Batch, Any]]

    @classmethod
    def of(cls, model: nn.Module, texts: Sequence[Batch], answers: Answers) -> DenseAnswers:
        """model: dense. One forward per batch."""
        with torch.no_grad():
            return cls(answers, [(b, answers.kept(answer_of(model, b))) for b in texts])

    def sample(self, texts: int, tokens: int) -> DenseAnswers:
        """Some of the texts, evenly spaced: about `texts` of them, or fewer with about `tokens`."""
        shapes = [next(iter(batch.values())).shape for batch, _ in self.known]
        in_all = sum(shape[0] for shape in shapes), sum(shape[:2].numel() for shape in shapes)
        every = max(1, in_all[0] // texts, -(-in_all[1] // tokens))
        return DenseAnswers(self.answers, self.known[::every])

    def divergence(
        self, model: nn.Module, begin: Callable[[int], None] = lambda batch: None
    ) -> float:
        """Mean nats between a model's predictions and the dense model's.

        begin: called with the number of each batch before its forward.
        """
        return float(self.divergences(model, begin).mean())

    def divergences(
        self, model: nn.Module, begin: Callable[[int], None] = lambda batch: None
    ) -> torch.Tensor:
        """(texts,) nats, in the order of the batches."""
        found = []
        with torch.no_grad():
            for number, (batch, dense) in enumerate(self.known):
                begin(number)
                found.append(self.answers.divergence(answer_of(model, batch), dense, batch))
        return torch.cat(found)


def answer_of(model: nn.Module, batch: Batch) -> Any:
    """A model's output for a batch, without a key-value cache."""
    return model(**without_cache(model, batch))
