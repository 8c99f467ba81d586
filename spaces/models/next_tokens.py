"""Predictions of a language model: the next-token distribution after each token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from paretoformer.spaces.models.divergence import TokenDistributions, mean_of_tokens
from paretoformer.spaces.models.tokens import Batch, token_mask

LIKELY = 256
"""Next tokens with a stored probability; the others are merged into one."""
LEAST = 1e-9
"""Lower bound of the merged probability, against rounding."""


@dataclass(frozen=True)
class LikelyTokens:
    """The stored part of the dense model's logits: a vocabulary of 50,000 takes 200 kB per token.

    tokens: (rows, length, `LIKELY` or fewer), the likeliest first. nats: their log probabilities.
    """

    tokens: torch.Tensor
    nats: torch.Tensor


class NextTokens(TokenDistributions):
    """Divergence over the dense model's likeliest tokens and "any other": a lower bound of the
    divergence over the vocabulary, and equal to it for a small vocabulary."""

    def kept(self, output: Any) -> LikelyTokens:
        if isinstance(output, LikelyTokens):
            return output
        logits = output.logits.float()
        found, tokens = logits.topk(min(LIKELY, logits.shape[-1]), dim=-1)
        return LikelyTokens(tokens.int(), found - logits.logsumexp(dim=-1, keepdim=True))

    def same(self, output: Any, dense: Any) -> torch.Tensor:
        """(rows, length) booleans: whether the dense model's likeliest token is also the likeliest
        here, ties included."""
        first = self.kept(dense).tokens[..., :1].long()
        found: torch.Tensor = output.logits.gather(-1, first)[..., 0] >= output.logits.amax(dim=-1)
        return found

    def divergence(self, output: Any, dense: Any, batch: Batch) -> torch.Tensor:
        likely = self.kept(dense)
        logits = output.logits.float()
        given = (
            logits.gather(-1, likely.tokens.long()) - logits.logsumexp(dim=-1, keepdim=True)
        ).double()
        wanted = likely.nats.double()
        nats = (wanted.exp() * (wanted - given)).sum(dim=-1)
        other = [(1 - each.exp().sum(dim=-1)).clamp(min=LEAST) for each in (wanted, given)]
        nats = nats + other[0] * (other[0] / other[1]).log()
        return mean_of_tokens(nats, token_mask(batch, logits))
