"""Full attention: every token attends to every token, by torch's fused kernel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch.nn import functional as F

from paretoformer.spaces.attention.base import Attention, IntDomain, register
from paretoformer.spaces.attention.padding import real, tracing


def softmax_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    lengths: torch.Tensor | None,
    causal: bool = False,
    scale: float,
) -> torch.Tensor:
    """softmax(scale · Q Kᵀ) V over the real keys.

    query: (batch, heads, queries, d). key, value: (batch, heads, keys, d).
    lengths: (batch,) real keys of each row, padded at its end; None when every key is real.
    """
    if lengths is None or causal:  # causal: padding at the end is never seen
        return F.scaled_dot_product_attention(query, key, value, is_causal=causal, scale=scale)
    mask = real(lengths, key.shape[-2])[:, None, None]  # broadcast, never (length x length)
    return masked_attention(query, key, value, mask=mask, scale=scale)


def masked_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    mask: torch.Tensor | None,
    scale: float,
) -> torch.Tensor:
    """Softmax attention under a mask that is the same for every query.

    mask: (batch or 1, 1, 1, keys), bool or added to the scores.
    """
    if mask is not None and tracing():  # ONNX Runtime does not broadcast it over the queries
        mask = mask.expand(query.shape[0], -1, query.shape[2], -1)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)


class Full(Attention):
    """softmax(scale · Q Kᵀ) V, exactly.

    Cost: O(n²) time; O(n) memory with the fused kernels behind `scaled_dot_product_attention`.
    Cannot: nothing. It is the reference for the others.
    Source: Vaswani et al. 2017 (arXiv:1706.03762), eq. 1. Differs in: a padded query gives zeros.
    """

    name = "full"
    family = "exact"
    complexity = "O(n²)"
    source = "arXiv:1706.03762"
    exact = "always"
    causal = True
    domains: ClassVar[Mapping[str, IntDomain]] = {}

    def attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        *,
        lengths: torch.Tensor | None,
        causal: bool,
        scale: float,
    ) -> torch.Tensor:
        return softmax_attention(query, key, value, lengths=lengths, causal=causal, scale=scale)


register(Full)
