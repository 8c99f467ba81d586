"""Tokens: which tokens of a batch are real, and which are padding."""

from __future__ import annotations

from collections.abc import Mapping

import torch

Batch = Mapping[str, torch.Tensor]


def token_mask(batch: Batch, hidden: torch.Tensor) -> torch.Tensor:
    """(batch, length) booleans, True for a real token.

    batch: inputs of a model. hidden: (batch, length, ...), the model's hidden states.
    """
    mask = batch.get("attention_mask")
    if mask is None:
        return torch.ones(hidden.shape[:2], dtype=torch.bool, device=hidden.device)
    return mask.bool()
