"""Tokens: which tokens of a batch are real, and which are padding."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

Batch = Mapping[str, torch.Tensor]
"""Inputs of a model by transformers' names; each (batch, ...)."""


@dataclass(frozen=True)
class Step:
    """The batches of one training step, whose gradients accumulate.

    repeats: whether the same batches come again, so that a trainer may keep what belongs to them.
    losses: for each batch, output -> its mean loss by the labels; empty where labels are not known.
    """

    batches: Sequence[Batch]
    repeats: bool = False
    losses: Sequence[Callable[[Any], torch.Tensor]] = ()


def token_mask(batch: Batch, hidden: torch.Tensor) -> torch.Tensor:
    """(batch, length) booleans, True for a real token.

    batch: inputs of a model. hidden: (batch, length, ...), the model's hidden states.
    """
    mask = batch.get("attention_mask")
    if mask is None:
        return torch.ones(hidden.shape[:2], dtype=torch.bool, device=hidden.device)
    return mask.bool()
