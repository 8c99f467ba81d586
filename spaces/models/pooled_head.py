"""Readout: a last layer computed only for the token that a classifier reads."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional as F

from paretoformer.spaces.attention.interface import MECHANISM
from paretoformer.spaces.models.families import Block, blocks_of, family_of, head_dim_of
from paretoformer.spaces.models.surgery import HeadlessAttention

READERS = ("ForSequenceClassification", "ForImageClassification")
"""Suffixes of the classes that read one token."""


def unsuitable(model: nn.Module) -> str:
    """Why more than the last layer's first token is read; empty when only that is."""
    config = cast(Any, model).config
    if not family_of(config).reads_first:
        return f"{config.model_type}'s last layer cannot be computed for the first token alone"
    if not type(model).__name__.endswith(READERS):
        return f"{type(model).__name__} reads other tokens than the first"
    return ""


def read_first(model: nn.Module) -> None:
    """Change the last layer in place; parameter names stay.

    If its mechanism is not exact attention, only the steps after it are skipped.
    """
    block = blocks_of(model)[-1]
    attention = block.attention
    exact = getattr(getattr(attention, MECHANISM, None), "name", "full") == "full"
    if exact and not isinstance(attention, HeadlessAttention):
        block.set(block.family.attention, FirstTokenAttention(block, head_dim_of(model.config)))
    norm = cast(nn.LayerNorm, block.get(block.family.attention_norm))
    block.set(block.family.attention_norm, FirstTokenNorm(norm))


class FirstTokenNorm(nn.LayerNorm):
    """Normalises the first token and drops the others; holds the tensors of a LayerNorm."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__(norm.normalized_shape, norm.eps, bias=norm.bias is not None, device="meta")
        self.weight, self.bias = norm.weight, norm.bias
        self.train(norm.training)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """(batch, length or 1, hidden) -> (batch, 1, hidden)."""
        return super().forward(hidden[:, :1])


class FirstTokenAttention(nn.Module):
    """Exact attention of the first token to every token, with another module's projections."""

    def __init__(self, block: Block, head_dim: int) -> None:
        super().__init__()
        family, old = block.family, block.attention
        prefix = f"{family.attention}."
        for name, child in old.named_children():
            self.add_module(name, child)
        self._inputs = tuple(path.removeprefix(prefix) for path in family.inputs)
        inner = family.output.removeprefix(prefix)
        self._output = "" if inner == family.output else inner
        self._head_dim = head_dim
        self._scale = float(getattr(old, "scaling", head_dim**-0.5))
        self.train(old.training)

    def forward(
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None, **kwargs: Any
    ) -> tuple[torch.Tensor, None]:
        """(batch, length, hidden) -> (batch, 1, hidden).

        attention_mask: (batch, length), or (batch, 1, queries, length) as transformers makes it.
        """
        query, key, value = (
            getattr(self, name)(hidden_states[:, :1] if index == 0 else hidden_states)
            .unflatten(-1, (-1, self._head_dim))
            .transpose(1, 2)
            for index, name in enumerate(self._inputs)
        )
        mask = attention_mask
        if mask is not None:
            mask = mask[:, None, None, :] if mask.ndim == 2 else mask[:, :, :1]
        mixed = F.scaled_dot_product_attention(query, key, value, mask, scale=self._scale)
        output = mixed.transpose(1, 2).flatten(2)
        return (getattr(self, self._output)(output) if self._output else output), None
