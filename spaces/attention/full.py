"""Full attention: every token attends to every token, by torch's own fused kernel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch.nn import functional as F

from paretoformer.spaces.attention.base import Attention, IntDomain, register


class Full(Attention):
    """softmax(scale · Q Kᵀ) V, exactly.

    Cost: O(n²) time; O(n) memory with the fused kernels behind `scaled_dot_product_attention`.
    Cannot: nothing. It is what the others are compared with.
    Source: Vaswani et al. 2017 (arXiv:1706.03762), eq. 1. Differs in: a row whose keys are all
    padded gives zeros.
    """

    name = "full"
    family = "exact"
    complexity = "O(n²)"
    source = "arXiv:1706.03762"
    causal = True
    domains: ClassVar[Mapping[str, IntDomain]] = {}

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        *,
        mask: torch.Tensor | None,
        causal: bool,
        scale: float,
    ) -> torch.Tensor:
        if mask is None:
            return F.scaled_dot_product_attention(query, key, value, is_causal=causal, scale=scale)
        keys = mask[:, None, None, :]  # (batch, 1, 1, keys), broadcast, never (length x length)
        if causal:
            length = query.shape[-2]
            past = torch.ones(length, length, dtype=torch.bool, device=query.device).tril()
            keys = keys & past
        return F.scaled_dot_product_attention(query, key, value, attn_mask=keys, scale=scale)


register(Full)
