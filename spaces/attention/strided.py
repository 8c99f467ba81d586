"""Strided attention: a local window, and every stride-th token for all queries."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch

from paretoformer.spaces.attention.banded import banded_attention, score_count
from paretoformer.spaces.attention.base import Attention, IntDomain, register


class Strided(Attention):
    """Token i sees token j when |i - j| < window, or stride divides j, or i is a global token.

        softmax(scale · Q Kᵀ + pattern) V,  pattern(i, j) = 0 where i sees j, else -inf

    Cost: O(n · (window + n / stride)) time and memory; O(n · window) at the default stride, which
    leaves 32 strided tokens. The source's stride √n would be O(n√n).
    Cannot: see tokens outside the window and between strides, except through other tokens.
    Source: Child et al. 2019, Sparse Transformers (arXiv:1904.10509), section 4.3, the "fixed"
    pattern, which that paper prefers for text. Differs in: both halves in one softmax; one summary
    token per stride, its first, so that the first token of the text is included; global tokens that
    see everything.
    """

    name = "strided"
    family = "fixed pattern"
    complexity = "O(n · (window + n/stride))"
    source = "arXiv:1904.10509"
    exact = "stride 1"
    causal = True
    tile = 2048
    domains: ClassVar[Mapping[str, IntDomain]] = {
        "stride": IntDomain(low=1, grid=(8, 16, 32, 64), default=16),
        "window": IntDomain(low=1, grid=(8, 16), default=16),
        "global_tokens": IntDomain(low=0, grid=(1,), default=1),
    }
    stride: int
    window: int
    global_tokens: int

    @classmethod
    def default(cls, length: int) -> dict[str, int]:
        return super().default(length) | {"stride": 2 ** round(math.log2(max(length, 64) / 32))}

    @classmethod
    def worthwhile(cls, length: int, **params: int) -> bool:
        every = -(-length // params["stride"])
        return score_count(length, params["window"], every) <= length**2

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
        return banded_attention(
            query,
            key,
            value,
            window=self.window,
            every=slice(0, None, self.stride),
            rows=self.global_tokens,
            lengths=lengths,
            causal=causal,
            scale=scale,
        )


register(Strided)
