"""Kernelised attention: feature products replace the exponential, so keys are summed first."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from paretoformer.spaces.attention.padding import real, tracing

CHUNK = 64
"""Tokens per chunk of a causal sum."""

TRACED_CHUNK = 16
"""The same in a traced graph. Smaller than the example, or the chunk count would become a constant.
"""


def kernel_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    lengths: torch.Tensor | None,
    causal: bool,
    before: torch.Tensor | None = None,
) -> torch.Tensor:
    """Σⱼ (qᵢ · kⱼ) vⱼ / Σⱼ (qᵢ · kⱼ), in time and memory linear in the length.

    query, key: (batch, heads, length, features), non-negative, no query all zero.
    value: (batch, heads, length, d).
    lengths: (batch,) real tokens of each row, padded at its end.
    causal: j runs up to i.
    before: (batch, heads, features, d + 1), the sums of earlier tokens; only when causal.

    Source: Katharopoulos et al. 2020 (arXiv:2006.16236), eq. 5 and 9. Differs in: the causal sums
    run over chunks, by matrix products, instead of token by token.
    """
    if lengths is not None:
        key = key * real(lengths, key.shape[2])[:, None, :, None]
    value = F.pad(value, (0, 1), value=1.0)  # its last column sums to the denominator
    sums = _causal_sums(query, key, value) if causal else query @ (key.transpose(-1, -2) @ value)
    if before is not None:
        sums = sums + query @ before
    weighted, total = sums[..., :-1], sums[..., -1:]
    return weighted / total.clamp(min=torch.finfo(total.dtype).tiny)


def _causal_sums(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Σ_{j ≤ i} (qᵢ · kⱼ) vⱼ: earlier chunks, then the query's own chunk."""
    length = query.shape[2]
    chunk = TRACED_CHUNK if tracing() else min(CHUNK, length)
    chunks = (length + chunk - 1) // chunk  # a graph rounds negative quotients the other way
    query, key, value = (
        F.pad(each, (0, 0, 0, chunks * chunk - length)).unflatten(2, (chunks, chunk))
        for each in (query, key, value)
    )
    products = key.transpose(-1, -2) @ value  # (batch, heads, chunks, features, d)
    within = (query @ key.transpose(-1, -2)).tril()  # (batch, heads, chunks, chunk, chunk)
    sums = query @ (products.cumsum(dim=2) - products) + within @ value
    return sums.flatten(2, 3)[:, :, :length]
