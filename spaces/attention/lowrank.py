"""Low-rank attention: keys and values projected along the sequence onto fewer rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch

from paretoformer.spaces.attention.base import Attention, IntDomain, register
from paretoformer.spaces.attention.full import masked_attention, softmax_attention
from paretoformer.spaces.attention.padding import tracing
from paretoformer.spaces.attention.segments import segment_means


class LowRank(Attention):
    """Every token attends to the means of `rank` segments of the sequence.

        softmax(scale · Q (E K)ᵀ + log s) (E V),  E: segment means, s: segment sizes

    Cost: O(n · rank) time and memory.
    Cannot: distinguish the tokens of a segment; be causal, because a segment includes later tokens.
    Source: Wang et al. 2020, Linformer (arXiv:2006.04768), eq. 7. Differs in: E is not trained but
    the mean of a segment, and log s weighs a segment by its size: the result is exact when the keys
    of each segment are equal.
    """

    name = "lowrank"
    family = "low rank"
    complexity = "O(n · rank)"
    source = "arXiv:2006.04768"
    exact = "rank >= length"
    causal = False
    domains: ClassVar[Mapping[str, IntDomain]] = {
        "rank": IntDomain(low=1, grid=(32, 64, 128), default=64),
    }
    rank: int

    @classmethod
    def worthwhile(cls, length: int, **params: int) -> bool:
        return 2 * params["rank"] <= length

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
        # The general path is also right for short sequences; a traced graph has one path only.
        if not tracing() and self.rank >= query.shape[2]:
            return softmax_attention(query, key, value, lengths=lengths, scale=scale)
        keys, sizes = segment_means(key, self.rank, lengths)
        values, _ = segment_means(value, self.rank, lengths)
        even = lengths is None and query.shape[2] % self.rank == 0
        bias = None if even else sizes.log()  # equal sizes shift all scores equally
        return masked_attention(query, keys, values, mask=bias, scale=scale)


register(LowRank)
