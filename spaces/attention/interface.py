"""The bridge to transformers: one attention function that asks each layer for its mechanism.

transformers routes every attention block through a function registered by name, and builds the
mask that this function gets by another one of the same name. Without the second it hands on no
mask at all, and padding would be ignored without a word; its own for sdpa builds a
(batch, 1, length, length) tensor. Ours hands on the padding, (batch, length), or None.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface

IMPLEMENTATION = "paretoformer"
"""The name under which models select this function: `config._attn_implementation`."""

MECHANISM = "paretoformer_attention"
"""The submodule of each attention module that holds its mechanism."""


def attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """What transformers calls; (batch, heads, length, d) becomes (batch, length, heads, d).

    Attention dropout is not applied: the mechanisms never form the matrix that it thins out.

    Raises:
        ValueError: the mask is not a padding mask, or a key-value cache lengthened the keys.
    """
    if attention_mask is not None and attention_mask.ndim != 2:
        raise ValueError(
            f"a compressed model takes a padding mask (batch, length), "
            f"but got a mask of shape {tuple(attention_mask.shape)}."
        )
    if key.shape[-2] != query.shape[-2]:
        raise ValueError(
            f"a compressed model keeps no key-value cache: {query.shape[-2]} queries "
            f"met {key.shape[-2]} keys."
        )
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    mechanism = getattr(module, MECHANISM)
    output = mechanism(query, key, value, mask=attention_mask, causal=False, scale=scale)
    return output.transpose(1, 2), None


def padding_mask(attention_mask: torch.Tensor | None = None, **kwargs: Any) -> torch.Tensor | None:
    """The padding, (batch, length) bool, or None when there is none."""
    if attention_mask is None or bool(attention_mask.all()):
        return None
    return attention_mask.to(torch.bool)


AttentionInterface.register(IMPLEMENTATION, attention_forward)
AttentionMaskInterface.register(IMPLEMENTATION, padding_mask)
