"""Routing attention: queries attend to keys of their own cluster."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch

from paretoformer.spaces.attention.base import Attention, IntDomain, register
from paretoformer.spaces.attention.full import softmax_attention
from paretoformer.spaces.attention.groups import UNEXPORTABLE, blocked_attention, by_group
from paretoformer.spaces.attention.kmeans import fit_centroids, nearest
from paretoformer.spaces.attention.padding import flat_rows, real

ITERATIONS = 2


class Routing(Attention):
    """A query attends to the n / clusters keys nearest to its own nearest centroid.

        softmax over S(c(q)) (scale · q Kᵀ) V,  c(q): nearest centroid, S(c): its nearest keys

    Cost: O(n · (clusters + n / clusters)) time and memory, O(n√n) at the default, √n clusters.
    Cannot: be causal, because centroids are fitted to later tokens too; see keys of other clusters,
    except those of global tokens.
    Source: Roy et al. 2021, Routing Transformer (arXiv:2003.05997), section 4.1. Differs in: the
    centroids are fitted to this sequence's keys by k-means from evenly spaced ones, because without
    training there are no running means; every query belongs to exactly one cluster, where the
    source takes the nearest queries of each centroid and drops the others; global tokens.
    """

    name = "routing"
    family = "learnable pattern"
    complexity = "O(n · (clusters + n/clusters))"
    source = "arXiv:2003.05997"
    exact = "one cluster"
    causal = False
    tile = 8192
    domains: ClassVar[Mapping[str, IntDomain]] = {
        "clusters": IntDomain(low=1, grid=(4, 8, 16, 32), default=16),
        "global_tokens": IntDomain(low=0, grid=(1,), default=1),
    }
    clusters: int
    global_tokens: int

    @classmethod
    def default(cls, length: int) -> dict[str, int]:
        return super().default(length) | {"clusters": 2 ** round(math.log2(max(length, 4)) / 2)}

    @classmethod
    def worthwhile(cls, length: int, **params: int) -> bool:
        return 8 * params["clusters"] <= length

    def unexportable(self) -> str:
        return UNEXPORTABLE

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
        batch, heads, length, _ = query.shape
        first = min(self.global_tokens, length)
        sizes = flat_rows(lengths, batch, heads, length, query.device)
        with torch.no_grad():
            queries, points = (each.flatten(0, 1) for each in (query, key))
            centroids = fit_centroids(points, min(self.clusters, length), sizes, ITERATIONS)
            keys, allowed = _nearest_keys(points, centroids, lengths, sizes, first)
            blocks = by_group(nearest(queries, centroids), keys, allowed)
        output = blocked_attention(query, key, value, blocks, scale=scale)
        if not first:
            return output
        rows = softmax_attention(query[:, :, :first], key, value, lengths=lengths, scale=scale)
        return torch.cat((rows, output[:, :, first:]), dim=2)


def _nearest_keys(
    key: torch.Tensor,
    centroids: torch.Tensor,
    lengths: torch.Tensor | None,
    sizes: torch.Tensor,
    first: int,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The first keys, and the n / clusters others that are nearest to each centroid.

    key: (rows, length, d). sizes: (rows,) real tokens of each row.

    Returns positions (rows, clusters, first + width), and which of them count (not padded, not
    beyond a shorter row's n / clusters); None for all.
    """
    length, count = key.shape[1], centroids.shape[1]
    offset = key.float().square().sum(dim=-1)[:, None] * -0.5
    near = torch.baddbmm(offset, centroids, key.to(centroids.dtype).mT)
    near[:, :, :first] = -torch.inf
    if lengths is not None:
        near = near.masked_fill(~real(sizes, length)[:, None], -torch.inf)
    width = min(-(-length // count), length - first)
    keys = near.topk(width, dim=-1, sorted=lengths is not None).indices
    shared = torch.arange(first, device=key.device).expand(*keys.shape[:2], -1)
    keys = torch.cat((shared, keys), dim=-1)
    if lengths is None:
        return keys, None
    wanted = first + ((sizes + count - 1) // count).minimum((sizes - first).clamp(min=0))
    steps = torch.arange(first + width, device=key.device)
    return keys, (steps < wanted[:, None, None]) & (keys < sizes[:, None, None])


register(Routing)
