"""Nystrom attention: the softmax matrix rebuilt from the rows and columns of a few landmarks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch.nn import functional as F

from paretoformer.spaces.attention.base import Attention, IntDomain, register
from paretoformer.spaces.attention.full import masked_attention, softmax_attention
from paretoformer.spaces.attention.padding import tracing
from paretoformer.spaces.attention.segments import segment_means

ITERATIONS = 6
"""Iterations of the pseudo-inverse, as in the source."""


class Nystrom(Attention):
    """Three thin softmax matrices in place of the square one.

        softmax(scale · Q K̃ᵀ) · A⁺ · softmax(scale · Q̃ Kᵀ) V,  A = softmax(scale · Q̃ K̃ᵀ)

    Q̃ and K̃ are the means of `landmarks` segments; A⁺ is found by iteration.

    Cost: O(n · landmarks + landmarks³) time, O(n · landmarks) memory.
    Cannot: be causal, because a landmark includes later tokens. Its weights may be negative and
    need not sum to one.
    Source: Xiong et al. 2021, Nystromformer (arXiv:2102.03902), eq. 14 and 15. Differs in: no
    depthwise convolution (it would need training); the pseudo-inverse starts from the norms of each
    head's own matrix, not from the batch's largest, so that a row's output does not depend on other
    rows; with a landmark for every token it computes exact attention.
    """

    name = "nystrom"
    family = "low rank"
    complexity = "O(n · landmarks + landmarks³)"
    source = "arXiv:2102.03902"
    exact = "landmarks >= length (computes `full` there)"
    causal = False
    domains: ClassVar[Mapping[str, IntDomain]] = {
        "landmarks": IntDomain(low=1, grid=(16, 32, 64), default=32),
    }
    landmarks: int

    @classmethod
    def worthwhile(cls, length: int, **params: int) -> bool:
        return 4 * params["landmarks"] <= length

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
        # With padding, `_exact_where_short` does this; a traced graph has one path only.
        if not (tracing() and lengths is not None) and self.landmarks >= query.shape[2]:
            return softmax_attention(query, key, value, lengths=lengths, scale=scale)
        tensors = (query, key, value)
        queries, sizes = segment_means(query, self.landmarks, lengths)
        keys, _ = segment_means(key, self.landmarks, lengths)
        there = None if lengths is None else sizes > 0  # (batch, 1, 1, landmarks)
        summary = softmax_attention(queries, key, value, lengths=lengths, scale=scale)
        scores = (queries @ keys.transpose(-1, -2)).float() * scale
        if there is not None:
            scores = scores.masked_fill(~there, float("-inf"))
        kernel = scores.softmax(dim=-1)
        if there is not None:  # mask landmarks that a short row lacks
            kernel = kernel * there.transpose(-1, -2)
        weighted = (pseudo_inverse(kernel) @ summary.float()).to(value.dtype)
        output = masked_attention(query, keys, weighted, mask=there, scale=scale)
        return (
            output if lengths is None else self._exact_where_short(output, *tensors, lengths, scale)
        )

    def _exact_where_short(
        self,
        output: torch.Tensor,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        lengths: torch.Tensor,
        scale: float,
    ) -> torch.Tensor:
        """`output`, but exact in rows with a landmark for every token, as without a batch."""
        count = self.landmarks
        start = (each[:, :, :count] for each in (query, key, value))
        exact = softmax_attention(*start, lengths=lengths.clamp(max=count), scale=scale)
        if tracing():  # may be shorter than `count`
            exact = F.pad(exact, (0, 0, 0, query.shape[2]))[:, :, : query.shape[2]]
        else:
            exact = F.pad(exact, (0, 0, 0, query.shape[2] - count))
        return torch.where((lengths <= count)[:, None, None, None], exact, output)


def pseudo_inverse(matrix: torch.Tensor) -> torch.Tensor:
    """The Moore-Penrose inverse of square matrices (..., m, m), by a third-order iteration.

    Source: Razavi et al. 2014, as in Xiong et al. 2021, eq. 11.
    """
    size = matrix.abs()
    norms = size.sum(dim=-1).amax(dim=-1) * size.sum(dim=-2).amax(dim=-1)
    inverse = matrix.transpose(-1, -2) / norms[..., None, None]
    eye = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    for _ in range(ITERATIONS):
        product = matrix @ inverse
        inner = 15 * eye - product @ (7 * eye - product)
        inverse = 0.25 * inverse @ (13 * eye - product @ inner)
    return inverse


register(Nystrom)
