"""Answers: how those of a compressed model compare with the uncompressed model's; no labels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch.nn import functional as F

TEMPERATURE = 2.0
"""Logits are divided by it in distillation (Hinton et al. 2015)."""


class Answers(ABC):
    """One kind of answers, as a model's output holds them. Stateless.

    Laws, checked by `paretoformer.testing.check_task`: an output diverges from itself by 0; the
    squared gradient of `probe` is in expectation the curvature of the divergence from it.
    """

    @abstractmethod
    def divergence(self, output: Any, dense: Any) -> torch.Tensor:
        """(rows,) how far each answer is from the uncompressed model's; 0 where it is the same."""

    @abstractmethod
    def probe(self, output: Any, generator: torch.Generator) -> torch.Tensor:
        """A random scalar of the answers, whose gradient tells what they depend on.

        Its first-order change is random, with the curvature of the divergence as its covariance.
        """

    @abstractmethod
    def distance(self, output: Any, dense: Any) -> torch.Tensor:
        """A scalar to train by: the mean over rows."""


class Distributions(Answers):
    """Logits of classes: the answer is their distribution; its divergence is in nats (KL)."""

    def divergence(self, output: Any, dense: Any) -> torch.Tensor:
        wanted = F.log_softmax(dense.logits.double(), dim=-1)
        given = F.log_softmax(output.logits.double(), dim=-1)
        return F.kl_div(given, wanted, reduction="none", log_target=True).sum(dim=-1)

    def probe(self, output: Any, generator: torch.Generator) -> torch.Tensor:
        """Along √p·v - p(√p·v), with p the probabilities and v drawn from N(0, 1): its square is in
        expectation the Fisher information."""
        logits = output.logits
        chance = logits.detach().float().softmax(dim=-1)
        draw = torch.randn(chance.shape, generator=generator).to(chance.device)
        spread = chance.sqrt() * draw
        direction = spread - chance * spread.sum(dim=-1, keepdim=True)
        found: torch.Tensor = (logits.float() * direction).sum()
        return found

    def distance(self, output: Any, dense: Any) -> torch.Tensor:
        return TEMPERATURE**2 * F.kl_div(
            F.log_softmax(output.logits.float() / TEMPERATURE, dim=-1),
            F.log_softmax(dense.logits.float() / TEMPERATURE, dim=-1),
            reduction="batchmean",
            log_target=True,
        )


class Directions(Answers):
    """Embeddings of length one: the answer is a direction; its divergence is 1 - cosine."""

    def divergence(self, output: Any, dense: Any) -> torch.Tensor:
        return 1 - cosines(output, dense)

    def probe(self, output: Any, generator: torch.Generator) -> torch.Tensor:
        """Along v - e(e·v), with e the embedding and v drawn from N(0, 1): its square is in
        expectation the curvature of 1 - cosine at e."""
        found = output.sentence_embedding
        unit = found.detach().float()
        draw = torch.randn(unit.shape, generator=generator).to(unit.device)
        direction = draw - unit * (unit * draw).sum(dim=-1, keepdim=True)
        along: torch.Tensor = (found.float() * direction).sum()
        return along

    def distance(self, output: Any, dense: Any) -> torch.Tensor:
        return self.divergence(output, dense).mean().float()


def cosines(output: Any, dense: Any) -> torch.Tensor:
    """(rows,) between embeddings of length one."""
    given, wanted = output.sentence_embedding.double(), dense.sentence_embedding.double()
    return F.cosine_similarity(given, wanted, dim=-1)
