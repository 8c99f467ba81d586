"""Divergence: how a compressed model's outputs differ from the dense model's; needs no labels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from torch.nn import functional as F

from paretoformer.spaces.models.tokens import Batch, token_mask

TEMPERATURE = 2.0
"""Logits are divided by it in distillation (Hinton et al. 2015)."""


class Answers(ABC):
    """One kind of predictions, read from a model's output for a batch. Stateless.

    Laws, checked by `paretoformer.testing.check_task`: an output diverges from itself by 0; the
    squared gradient of `probe` has the curvature of the divergence as its expectation.
    """

    output: ClassVar[str] = "logits"
    """The attribute of a model's output that holds the predictions."""
    by_row: ClassVar[bool] = False
    """Whether `output` has one shape per row, however long the texts of its batch are, and `kept`
    is the whole output."""

    @abstractmethod
    def divergence(self, output: Any, dense: Any, batch: Batch) -> torch.Tensor:
        """(rows,) divergence from the dense model's predictions; 0 where equal.

        dense: the dense model's output, or its `kept` part.
        """

    def kept(self, output: Any) -> Any:
        """The part of the dense model's output that comparisons need."""
        return output

    @abstractmethod
    def probe(self, output: Any, generator: torch.Generator, batch: Batch) -> torch.Tensor:
        """A random scalar whose gradient shows what the predictions depend on. Its first-order
        change is random, with the curvature of the divergence as its covariance."""

    @abstractmethod
    def distance(self, output: Any, dense: Any, batch: Batch) -> torch.Tensor:
        """The training loss: the mean over rows."""


class Distributions(Answers):
    """Logits of classes; the divergence of their distributions is in nats (KL)."""

    by_row = True

    def divergence(self, output: Any, dense: Any, batch: Batch) -> torch.Tensor:
        return _nats(output, dense)

    def probe(self, output: Any, generator: torch.Generator, batch: Batch) -> torch.Tensor:
        """Along √p·v - p(√p·v), with p the probabilities and v drawn from N(0, 1): the expectation
        of its square is the Fisher information."""
        return _probes(output, generator).sum()

    def distance(self, output: Any, dense: Any, batch: Batch) -> torch.Tensor:
        return _nats_to_train_by(output, dense).mean()


class TokenDistributions(Answers):
    """Logits of classes for each token; the divergence is the mean over real tokens (KL, nats)."""

    def divergence(self, output: Any, dense: Any, batch: Batch) -> torch.Tensor:
        return mean_of_tokens(_nats(output, dense), token_mask(batch, output.logits))

    def probe(self, output: Any, generator: torch.Generator, batch: Batch) -> torch.Tensor:
        """As in `Distributions` for each token, over the root of the row's number of tokens."""
        mask = token_mask(batch, output.logits)
        shares = mask / mask.sum(dim=1, keepdim=True).clamp(min=1).sqrt()
        return (_probes(output, generator) * shares).sum()

    def distance(self, output: Any, dense: Any, batch: Batch) -> torch.Tensor:
        mask = token_mask(batch, output.logits)
        return mean_of_tokens(_nats_to_train_by(output, dense), mask).mean()


def _nats(output: Any, dense: Any) -> torch.Tensor:
    """KL divergence in nats: (...) for logits (..., classes)."""
    wanted = F.log_softmax(dense.logits.double(), dim=-1)
    given = F.log_softmax(output.logits.double(), dim=-1)
    return F.kl_div(given, wanted, reduction="none", log_target=True).sum(dim=-1)


def _nats_to_train_by(output: Any, dense: Any) -> torch.Tensor:
    """The same in single precision, at a higher temperature."""
    return TEMPERATURE**2 * F.kl_div(
        F.log_softmax(output.logits.float() / TEMPERATURE, dim=-1),
        F.log_softmax(dense.logits.float() / TEMPERATURE, dim=-1),
        reduction="none",
        log_target=True,
    ).sum(dim=-1)


def _probes(output: Any, generator: torch.Generator) -> torch.Tensor:
    logits = output.logits
    chance = logits.detach().float().softmax(dim=-1)
    draw = torch.randn(chance.shape, generator=generator).to(chance.device)
    spread = chance.sqrt() * draw
    direction = spread - chance * spread.sum(dim=-1, keepdim=True)
    found: torch.Tensor = (logits.float() * direction).sum(dim=-1)
    return found


def mean_of_tokens(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(rows,) over the real tokens."""
    counts = mask.sum(dim=1).clamp(min=1)
    return (values * mask).sum(dim=1) / counts


class MultiLabel(Answers):
    """Independent yes-or-no logits per class; the divergence is their sum, in nats (KL)."""

    by_row = True

    def divergence(self, output: Any, dense: Any, batch: Batch) -> torch.Tensor:
        return _nats(
            _as_two_classes(output, torch.float64), _as_two_classes(dense, torch.float64)
        ).sum(dim=-1)

    def probe(self, output: Any, generator: torch.Generator, batch: Batch) -> torch.Tensor:
        """Along √(p(1-p))·v, with p the probabilities and v drawn from N(0, 1): the expectation of
        its square is the Fisher information."""
        logits = output.logits
        chance = logits.detach().float().sigmoid()
        draw = torch.randn(chance.shape, generator=generator).to(chance.device)
        found: torch.Tensor = (logits.float() * (chance * (1 - chance)).sqrt() * draw).sum()
        return found

    def distance(self, output: Any, dense: Any, batch: Batch) -> torch.Tensor:
        given, wanted = (_as_two_classes(each, torch.float32) for each in (output, dense))
        return _nats_to_train_by(given, wanted).sum(dim=-1).mean()


def _as_two_classes(output: Any, dtype: torch.dtype) -> Any:
    """Each class as a choice of two: (rows, classes, 2)."""
    logits = output.logits.to(dtype)
    return SimpleNamespace(logits=torch.stack((logits, torch.zeros_like(logits)), dim=-1))


class Numbers(Answers):
    """One number per row, its only logit; the divergence is half the squared difference: the nats
    between normal distributions of variance 1 around the two."""

    by_row = True

    def divergence(self, output: Any, dense: Any, batch: Batch) -> torch.Tensor:
        difference = output.logits.double() - dense.logits.double()
        nats: torch.Tensor = 0.5 * difference.square().sum(dim=-1)
        return nats

    def probe(self, output: Any, generator: torch.Generator, batch: Batch) -> torch.Tensor:
        """Along v, drawn from N(0, 1) for each row."""
        logits = output.logits.float()
        draw = torch.randn(logits.shape, generator=generator).to(logits.device)
        found: torch.Tensor = (logits * draw).sum()
        return found

    def distance(self, output: Any, dense: Any, batch: Batch) -> torch.Tensor:
        return self.divergence(output, dense, batch).mean().float()


class Directions(Answers):
    """Embeddings. The divergence is half the squared distance, in squared lengths of the dense
    vector: 1 - cosine for vectors of length one."""

    output = "sentence_embedding"
    by_row = True

    def divergence(self, output: Any, dense: Any, batch: Batch) -> torch.Tensor:
        given, wanted = output.sentence_embedding.double(), dense.sentence_embedding.double()
        distance = (given - wanted).square().sum(dim=-1) / wanted.square().sum(dim=-1)
        half: torch.Tensor = distance / 2
        return half

    def probe(self, output: Any, generator: torch.Generator, batch: Batch) -> torch.Tensor:
        """Along v / |e|, with e the embedding and v drawn from N(0, 1): the expectation of its
        square is the curvature of the divergence at e."""
        found = output.sentence_embedding.float()
        draw = torch.randn(found.shape, generator=generator).to(found.device)
        along: torch.Tensor = (found * draw / found.detach().norm(dim=-1, keepdim=True)).sum()
        return along

    def distance(self, output: Any, dense: Any, batch: Batch) -> torch.Tensor:
        return self.divergence(output, dense, batch).mean().float()
