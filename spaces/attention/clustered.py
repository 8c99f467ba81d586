"""Clustered attention: one attention row for each cluster of queries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch

from paretoformer.spaces.attention.base import Attention, IntDomain, register
from paretoformer.spaces.attention.full import softmax_attention
from paretoformer.spaces.attention.gather import put_back, take
from paretoformer.spaces.attention.groups import UNEXPORTABLE, blocked_attention, by_group
from paretoformer.spaces.attention.kmeans import fit_centroids, membership, nearest
from paretoformer.spaces.attention.padding import flat_rows, real, tracing

ITERATIONS = 3


class Clustered(Attention):
    """Queries of a cluster share the attention of their mean; its top keys are attended to exactly.

        A = softmax(scale · Q̄ Kᵀ),  out = m · softmax over T(scale · Q Kᵀ) V_T + A_rest V

    Q̄: cluster means; T: the `top_keys` largest entries of the cluster's row of A, m their sum.

    Cost: O(n · (clusters + top_keys)) time and memory.
    Cannot: be causal, because a cluster's mean includes later tokens.
    Source: Vyas et al. 2020 (arXiv:2007.04825), sections 3.1 and 3.2. Differs in: k-means runs on
    the queries, not on their hashes, from evenly spaced ones, so nothing is random; it is fitted to
    at most 1,024 queries; `top_keys` 0 is the plain form.
    """

    name = "clustered"
    family = "learnable pattern"
    complexity = "O(n · (clusters + top_keys))"
    source = "arXiv:2007.04825"
    exact = "clusters >= length (computes `full` there)"
    causal = False
    tile = 16384
    domains: ClassVar[Mapping[str, IntDomain]] = {
        "clusters": IntDomain(low=1, grid=(16, 32, 64), default=32),
        "top_keys": IntDomain(low=0, grid=(0, 16), default=0),
    }
    clusters: int
    top_keys: int

    @classmethod
    def worthwhile(cls, length: int, **params: int) -> bool:
        return 4 * (params["clusters"] + params["top_keys"]) <= length

    def unexportable(self) -> str:
        return f"with top_keys {UNEXPORTABLE}" if self.top_keys else ""

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
        # The general path is also right for short sequences; a traced graph has one path only.
        if not tracing() and self.clusters >= length:
            return softmax_attention(query, key, value, lengths=lengths, scale=scale)
        queries, keys, values = (each.flatten(0, 1) for each in (query, key, value))
        sizes = flat_rows(lengths, batch, heads, length, query.device)
        here = real(sizes, length)
        centroids = fit_centroids(queries, self.clusters, sizes, ITERATIONS)
        cluster = nearest(queries, centroids)
        member = membership(cluster, self.clusters, here).to(query.dtype)
        means = (member @ queries) / member.sum(dim=-1, keepdim=True).clamp(min=1)
        scores = (means * scale) @ keys.mT  # (rows, clusters, length)
        if lengths is not None:
            scores = scores.masked_fill(~here[:, None], -torch.inf)
        weights = scores.softmax(dim=-1)
        answers = weights @ values  # (rows, clusters, d)
        top = min(self.top_keys, length)
        if not top:
            return put_back(answers, cluster, heads)
        # With padding, the top keys may include padded ones, of weight 0.
        strong, best = weights.topk(top, dim=-1)
        allowed = None if lengths is None else best < sizes[:, None, None]
        sharp = blocked_attention(query, key, value, by_group(cluster, best, allowed), scale=scale)
        rest = answers - (strong[:, :, None] @ take(values, best)).squeeze(2)
        mass = strong.sum(dim=-1, keepdim=True)
        mass, rest = (put_back(each, cluster, heads) for each in (mass, rest))
        return mass * sharp + rest


register(Clustered)
