"""Random-feature attention: the softmax kernel estimated by positive orthogonal features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch

from paretoformer.spaces.attention.base import Attention, IntDomain, register
from paretoformer.spaces.attention.kernelized import kernel_attention
from paretoformer.spaces.attention.padding import real


class RandomFeatures(Attention):
    """The softmax kernel exp(q · k) as the mean of products of positive random features.

        φ(x) = exp(W x - |x|²/2) / √m,  E[φ(q) · φ(k)] = exp(q · k),  W: m orthogonal directions

    Cost: O(n · features · head_dim) time, O(n · features) memory.
    Cannot: follow sharp attention with few features: the estimate's variance grows as exp(|q +
    k|²); its error falls as 1/√features.
    Source: Choromanski et al. 2021, Performer, FAVOR+ (arXiv:2009.14794), lemma 1 and section 2.4.
    Differs in: keys are centred (on their mean; on the first key when causal), which changes no
    softmax weight and lowers the variance; W is drawn once from `seed` and never redrawn.
    """

    name = "random_features"
    family = "kernel"
    complexity = "O(n · features · head_dim)"
    source = "arXiv:2009.14794"
    exact = "none; error ~ 1/√features"
    causal = True
    tile = 4096
    domains: ClassVar[Mapping[str, IntDomain]] = {
        "features": IntDomain(low=1, grid=(32, 64, 128), default=64),
        "seed": IntDomain(low=0, grid=(0,), default=0),
    }
    features: int
    seed: int
    projection: torch.Tensor
    """(features, head_dim)."""

    def __init__(self, head_dim: int, **params: int) -> None:
        super().__init__(head_dim, **params)
        drawn = orthogonal_directions(self.features, head_dim, self.seed)
        self.register_buffer("projection", drawn)

    @classmethod
    def worthwhile(cls, length: int, **params: int) -> bool:
        return 2 * params["features"] <= length

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
        query, key = query.float(), key.float()
        projection = self.projection.float().mT * scale**0.5  # (head_dim, features)
        keys = self._exponents(key, projection, lengths, causal, scale)
        # A factor common to all features of a query, or to all keys, cancels. So |q|² is not
        # needed, and a one-pass softmax replaces the exponential.
        queries = (query @ projection).softmax(dim=-1)
        keys = keys.exp() if causal else keys.flatten(-2).softmax(dim=-1).view_as(keys)
        output = kernel_attention(queries, keys, value.float(), lengths=None, causal=causal)
        return output.to(value.dtype)

    def _exponents(
        self,
        key: torch.Tensor,
        projection: torch.Tensor,
        lengths: torch.Tensor | None,
        causal: bool,
        scale: float,
    ) -> torch.Tensor:
        """w · (k - c) - |k - c|²/2, c: the centre: (batch, heads, length, features).

        One product: [k, k · c - |k|²/2, 1] by [w, 1, -w · c - |c|²/2] of each head.
        """
        centre = _centre(key, lengths, causal)
        norms = key @ (centre.mT * scale) - torch.linalg.vector_norm(
            key, dim=-1, keepdim=True
        ).square() * (scale / 2)
        if lengths is not None:  # exp(-inf) = 0
            norms = norms.masked_fill(~real(lengths, key.shape[2])[:, None, :, None], -torch.inf)
        shift = -centre @ projection - centre.square().sum(dim=-1, keepdim=True) * (scale / 2)
        if causal:  # no exponent exceeds |w|²/2; half of that keeps large and small ones in range
            shift = shift - self.projection.float().square().sum(dim=-1).max() / 4
        heads = key.shape[:2]
        weights = torch.cat(
            (projection.expand(*heads, -1, -1), torch.ones_like(shift), shift),
            dim=2,
        )
        return torch.cat((key, norms, torch.ones_like(norms)), dim=-1) @ weights


def _centre(key: torch.Tensor, lengths: torch.Tensor | None, causal: bool) -> torch.Tensor:
    """A point near the keys, (batch, heads, 1, head_dim); when causal, the first key."""
    if causal:
        return key[:, :, :1]
    if lengths is None:
        return key.mean(dim=2, keepdim=True)
    here = real(lengths, key.shape[2])[:, None, :, None]
    return key.masked_fill(~here, 0).sum(dim=2, keepdim=True) / lengths[:, None, None, None]


def orthogonal_directions(count: int, width: int, seed: int) -> torch.Tensor:
    """(count, width): orthogonal within blocks of `width` rows; each row is a Gaussian vector."""
    generator = torch.Generator().manual_seed(seed)
    blocks = []
    for _ in range(-(-count // width)):
        gaussian = torch.randn(width, width, generator=generator, dtype=torch.float64)
        basis, triangle = torch.linalg.qr(gaussian)
        # These signs make the rotation uniform (Mezzadri 2007, arXiv:math-ph/0609050).
        directions = (basis * triangle.diagonal().sign()).T
        norms = torch.randn(width, width, generator=generator, dtype=torch.float64).norm(dim=1)
        blocks.append(directions * norms[:, None])
    return torch.cat(blocks)[:count].float()


register(RandomFeatures)
