"""LSH attention: queries attend to keys that random rotations hash into the same bucket."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch.nn import functional as F

from paretoformer.spaces.attention.base import Attention, IntDomain, register
from paretoformer.spaces.attention.full import softmax_attention
from paretoformer.spaces.attention.groups import (
    BLOCK,
    UNEXPORTABLE,
    Blocks,
    blocked_attention,
    by_group,
    sorted_by,
)
from paretoformer.spaces.attention.padding import flat_rows, real


class Lsh(Attention):
    """A query attends to the keys around its own bucket, in several rounds of hashing.

        h(x) = argmax [x R; -x R],  out = softmax over ∪ S(h(q)) (scale · q Kᵀ) V

    R: a random rotation per round; from 64 buckets on, a pair of rotations whose two hashes
    together give the bucket. S: the 2 n / buckets keys around the bucket, sorted by bucket.
    Queries, sorted by bucket, are cut into blocks of 32 that share the S of their middle query.
    Causal: S(h(q)) is the query itself and the last 2 n / buckets keys of its bucket before it.

    Cost: O(n · rounds · (√buckets + n / buckets)) time and memory, O(n) at the default, n / 32
    buckets.
    Cannot: find a non-global key that hashes elsewhere in every round. A key found in several
    rounds counts several times.
    Source: Kitaev et al. 2020, Reformer (arXiv:2001.04451), section 2. Differs in: queries and keys
    are separate, both hashed by direction, keys centred (which changes no softmax weight); each
    block takes the keys around its bucket, without fixed chunks; when causal, nothing that a query
    sees depends on later tokens, unlike the source's chunk borders; global tokens; rotations are
    drawn once from `seed` and stored.
    """

    name = "lsh"
    family = "learnable pattern"
    complexity = "O(n · rounds · (√buckets + n/buckets))"
    source = "arXiv:2001.04451"
    exact = "one bucket (computes `full` there)"
    causal = True
    tile = 8192
    domains: ClassVar[Mapping[str, IntDomain]] = {
        "buckets": IntDomain(low=1, grid=(8, 16, 32), default=16),
        "rounds": IntDomain(low=1, grid=(1, 2), default=1),
        "global_tokens": IntDomain(low=0, grid=(1,), default=1),
        "seed": IntDomain(low=0, grid=(0,), default=0),
    }
    buckets: int
    rounds: int
    global_tokens: int
    seed: int
    rotations: torch.Tensor
    """(rounds, head_dim, half of the sum of `factors`)."""

    def __init__(self, head_dim: int, **params: int) -> None:
        super().__init__(head_dim, **params)
        if self.buckets % 2 and self.buckets > 1:
            raise ValueError(f"buckets is an even number, or 1, but got {self.buckets}.")
        shape = (self.rounds, head_dim, sum(self.factors) // 2)
        generator = torch.Generator().manual_seed(self.seed)
        self.register_buffer("rotations", torch.randn(shape, generator=generator))

    @property
    def factors(self) -> tuple[int, ...]:
        """Even numbers whose product is the number of buckets; one hash is taken per factor."""
        if self.buckets < 64:
            return (self.buckets,)
        roots = range(int(self.buckets**0.5), 1, -1)
        pairs = ((each, self.buckets // each) for each in roots if self.buckets % each == 0)
        even = (pair for pair in pairs if not (pair[0] % 2 or pair[1] % 2))
        return next(even, (self.buckets,))

    @classmethod
    def default(cls, length: int) -> dict[str, int]:
        return super().default(length) | {"buckets": 2 ** round(math.log2(max(length, 64)) - 5)}

    @classmethod
    def worthwhile(cls, length: int, **params: int) -> bool:
        return 4 * params["rounds"] <= params["buckets"] <= length // 8

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
        if self.buckets == 1:
            return softmax_attention(query, key, value, lengths=lengths, causal=causal, scale=scale)
        first = min(self.global_tokens, query.shape[2])
        with torch.no_grad():
            sort = self._last if causal else self._around
            rounds = [
                sort(*each, lengths, first) for each in self._hashes(query, key, lengths, causal)
            ]
        output = blocked_attention(query, key, value, *rounds, scale=scale)
        if causal or not first:
            return output
        rows = softmax_attention(query[:, :, :first], key, value, lengths=lengths, scale=scale)
        return torch.cat((rows, output[:, :, first:]), dim=2)

    def _hashes(
        self, query: torch.Tensor, key: torch.Tensor, lengths: torch.Tensor | None, causal: bool
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """For each round, the bucket of each query and of each key: (batch, heads, length)."""
        if causal:
            key, centre = key - key[:, :, :1], None  # exact zeros must stay exact
        elif lengths is None:
            centre = key.mean(dim=2, keepdim=True)
        else:
            here = real(lengths, key.shape[2])[:, None, :, None]
            centre = key.masked_fill(~here, 0).sum(dim=2, keepdim=True)
            centre = centre / lengths[:, None, None, None]
        return [
            (
                bucket_of(query, rotation, self.factors),
                bucket_of(key, rotation, self.factors, centre),
            )
            for rotation in self.rotations
        ]

    def _around(
        self,
        query_bucket: torch.Tensor,
        key_bucket: torch.Tensor,
        lengths: torch.Tensor | None,
        first: int,
    ) -> Blocks:
        """Each block attends to the keys around its middle query's bucket, and to the first keys.

        A bucket with more keys loses the outer ones; one with fewer reaches into its neighbours, as
        in the source.
        """
        batch, heads, length = query_bucket.shape
        device = query_bucket.device
        sizes = flat_rows(lengths, batch, heads, length, device)[:, None]
        position = torch.arange(length, device=device)
        padded = position >= sizes
        # Padded keys and global keys (attended to anyway) sort behind all others.
        aside = padded | (position < first)
        key_order, counts = sorted_by(
            key_bucket.flatten(0, 1).masked_fill(aside, self.buckets), self.buckets + 1
        )
        order, _ = sorted_by(
            query_bucket.flatten(0, 1).masked_fill(padded, self.buckets), self.buckets + 1
        )
        blocks = -(-length // BLOCK)
        order = F.pad(order, (0, blocks * BLOCK - length))
        middle = torch.arange(blocks, device=device) * BLOCK + BLOCK // 2
        middle = order.take_along_dim(middle.minimum(sizes - 1), dim=1)
        bucket = query_bucket.flatten(0, 1).take_along_dim(middle, dim=1)  # (rows, blocks)
        others = (sizes - first).clamp(min=0)
        wanted = (2 * ((sizes + self.buckets - 1) // self.buckets)).minimum(others)
        starts = (
            counts.cumsum(dim=1) - counts + torch.div(counts - wanted, 2, rounding_mode="floor")
        )
        starts = starts.clamp(min=0).minimum(others - wanted).take_along_dim(bucket, dim=1)
        steps = torch.arange(min(self._width(length), length - first), device=device)
        places = (starts[..., None] + steps).clamp(max=length - 1)  # (rows, blocks, width)
        keys = key_order.take_along_dim(places.flatten(1), dim=1).unflatten(1, places.shape[1:])
        shared = torch.arange(first, device=device).expand(*keys.shape[:2], -1)
        keys = torch.cat((shared, keys), dim=2)
        allowed = None
        if lengths is not None:
            allowed = torch.cat((position[:first] < sizes, steps < wanted), dim=1)[:, None, None]
        slot = torch.empty_like(order[:, :length])
        slot.scatter_(1, order[:, :length], position.expand_as(slot))
        return Blocks(order.unflatten(1, (blocks, BLOCK)), slot, keys, allowed)

    def _last(
        self,
        query_bucket: torch.Tensor,
        key_bucket: torch.Tensor,
        lengths: torch.Tensor | None,
        first: int,
    ) -> Blocks:
        """Each query attends to the last keys of its bucket before it, itself, and the first keys.

        The keys, sorted by bucket, are cut into chunks. A query reads the chunk of the last of its
        keys and the one before; a mask leaves exactly its own keys. So the chunk borders, which
        depend on later tokens, do not matter.
        """
        batch, heads, length = query_bucket.shape
        device = query_bucket.device
        theirs, own = key_bucket.flatten(0, 1), query_bucket.flatten(0, 1)
        rows = len(own)
        width = min(self._width(length), length)
        chunks = -(-length // width)
        order, counts = sorted_by(theirs, self.buckets)
        starts = counts.cumsum(dim=1) - counts
        # Keys of each bucket before each token: its rank in the order of (bucket, position).
        position = torch.arange(length, device=device).expand(rows, -1)
        sort_key = theirs.take_along_dim(order, dim=1) * length + order
        ends = torch.searchsorted(
            sort_key, (own * length + position).contiguous()
        )  # (rows, length)
        begins = starts.take_along_dim(own, dim=1)
        chunk = ((ends - 1).clamp(min=0)) // width
        places = torch.arange(-width, width, device=device)
        places = places + torch.arange(chunks, device=device)[:, None] * width  # (chunks, 2 width)
        index = places.clamp(0, length - 1)
        keys = order[:, index.flatten()].unflatten(1, index.shape)  # (rows, chunks, 2 width)
        blocks = by_group(chunk, keys)
        # The query's own keys: places from `begins`, and `width` back from `ends`.
        own_chunk = chunk.take_along_dim(blocks.query[:, :, 0], dim=1)  # (rows, blocks)
        there = own_chunk[..., None] * width + torch.arange(-width, width, device=device)
        if lengths is None:
            reach = torch.full((rows, 1), width, device=device)
        else:
            sizes = flat_rows(lengths, batch, heads, length, device)[:, None]
            reach = (2 * ((sizes + self.buckets - 1) // self.buckets)).minimum(sizes)
        flat = blocks.query.flatten(1)
        last = ends.take_along_dim(flat, dim=1)
        lowest = begins.take_along_dim(flat, dim=1).maximum(last - reach)
        shape = blocks.query.shape[1:]
        there, last, lowest = (
            there[:, :, None],
            last.unflatten(1, shape),
            lowest.unflatten(1, shape),
        )
        allowed = (there >= lowest[..., None]) & (there < last[..., None])
        allowed = allowed & (blocks.keys >= first)[:, :, None]
        shared = torch.arange(first, device=device).expand(*blocks.keys.shape[:2], -1)
        before = shared[:, :, None] < blocks.query[..., None]
        return Blocks(
            blocks.query,
            blocks.slot,
            torch.cat((shared, blocks.keys), dim=2),
            torch.cat((before, allowed), dim=3),
            own=True,
        )

    def _width(self, length: int) -> int:
        """Keys that a query attends to in one round."""
        return 2 * -(-length // self.buckets)


def bucket_of(
    x: torch.Tensor,
    rotation: torch.Tensor,
    factors: tuple[int, ...],
    centre: torch.Tensor | None = None,
) -> torch.Tensor:
    """argmax [y R; -y R] of y = x - centre, per factor, combined: (batch, heads, length) long.

    x: (batch, heads, length, d). centre: (batch, heads, 1, d).
    rotation: (d, half of the sum of the factors), concatenated.

    Returns numbers below the product of the factors.
    """
    turned = x.transpose(1, 2) @ rotation.to(x.dtype)  # (batch, length, heads, columns)
    if centre is not None:
        turned = turned - centre.transpose(1, 2) @ rotation.to(x.dtype)
    bucket = torch.zeros(turned.shape[:-1], dtype=torch.long, device=x.device)
    for part, factor in zip(turned.split([f // 2 for f in factors], -1), factors, strict=True):
        bucket = bucket * factor + _largest(part)
    return bucket.transpose(1, 2)


def _largest(turned: torch.Tensor) -> torch.Tensor:
    """argmax [t; -t] along the last axis, the first of equals.

    The largest |t|, with its index in the lowest bits: floats of one sign sort like their bits, and
    `amax` is 17x faster than `argmax`.
    """
    half = turned.shape[-1]
    bits = half.bit_length()
    number = torch.arange(half, dtype=torch.int32, device=turned.device).flip(0)
    size = turned.float().abs().view(torch.int32)
    best = ((size >> bits << bits) | number).amax(dim=-1).bitwise_and((1 << bits) - 1)
    best = half - 1 - best.long()
    negative = turned.take_along_dim(best[..., None], dim=-1).squeeze(-1) < 0
    return best + half * negative


register(Lsh)
