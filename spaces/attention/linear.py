"""Linear attention: the feature map elu + 1 in place of the exponential."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch.nn import functional as F

from paretoformer.spaces.attention.base import Attention, IntDomain, register
from paretoformer.spaces.attention.kernelized import kernel_attention
from paretoformer.spaces.attention.recurrent import RecurrentLayer
from paretoformer.spaces.attention.short_cache import ShortLayer


class Linear(Attention):
    """Kernelised attention with head_dim features.

        φ(Q) (φ(K)ᵀ V) / φ(Q) (φ(K)ᵀ 1),  φ(x) = elu(x) + 1

    Cost: O(n · head_dim²) time, O(n · head_dim) memory.
    Cannot: equal softmax attention at any setting; a model trained with softmax keeps its accuracy
    only where it does not rely on sharp attention.
    Source: Katharopoulos et al. 2020 (arXiv:2006.16236), eq. 7. Differs in: √scale is applied to
    queries and to keys, since the weights were trained with `scale`.

    Its key-value cache has one size for every length: see `recurrent`.
    """

    name = "linear"
    family = "kernel"
    complexity = "O(n · head_dim²)"
    source = "arXiv:2006.16236"
    exact = "none"
    causal = True
    tile = 16384
    domains: ClassVar[Mapping[str, IntDomain]] = {}

    def cache_layer(self, scale: float) -> ShortLayer:
        return RecurrentLayer(_features, scale)

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
        queries, keys = (_features(each.float() * scale**0.5) for each in (query, key))
        output = kernel_attention(queries, keys, value.float(), lengths=lengths, causal=causal)
        return output.to(value.dtype)


def _features(values: torch.Tensor) -> torch.Tensor:
    return F.elu(values) + 1


register(Linear)
