"""Blocked attention: a block of queries shares a short list of keys.

Shared by clustered, routing and lsh attention. A block is one small dense product, and keys are
gathered per block, not per query.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from paretoformer.spaces.attention.gather import Vectors, put_back

UNEXPORTABLE = "sorts tokens into groups whose sizes depend on the text, which ONNX cannot express"

BLOCK = 32
"""Most queries per block."""


@dataclass(frozen=True)
class Blocks:
    """Which queries form a block, and which keys it attends to; rows are batch * heads.

    query: (rows, blocks, block) long: the query in each place; any query in an empty place.
    slot: (rows, queries) long: the place of each query among blocks * block.
    keys: (rows, blocks, width) long: positions of the block's keys.
    allowed: (rows, blocks, 1 or block, width) bool: which of them count; None for all.
    own: a query also attends to its own key, in addition to those of its block.
    """

    query: torch.Tensor
    slot: torch.Tensor
    keys: torch.Tensor
    allowed: torch.Tensor | None = None
    own: bool = False


def blocked_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *rounds: Blocks,
    scale: float,
) -> torch.Tensor:
    """Softmax attention of each query over the keys of its block.

    query, key, value: (batch, heads, length, d).
    rounds: a key that occurs in several rounds counts several times.

    Returns (batch, heads, length, d).
    """
    queries, keys, values = Vectors(query), Vectors(key), Vectors(value)
    outputs, masses = [], []
    for blocks in rounds:
        rows = queries.take(blocks.query) * scale  # (rows, blocks, block, d)
        scores = rows @ keys.take(blocks.keys).mT  # (rows, blocks, block, width)
        if blocks.allowed is not None:
            scores = scores.masked_fill(~blocks.allowed, -torch.inf)
        if blocks.own:
            mine = (rows * keys.take(blocks.query)).sum(dim=-1, keepdim=True)
            scores = torch.cat((scores, mine), dim=-1)
        weights = scores.softmax(dim=-1)
        met = weights[..., :-1] if blocks.own else weights
        output = met @ values.take(blocks.keys)
        if blocks.own:
            output = output + weights[..., -1:] * values.take(blocks.query)
        outputs.append(put_back(output.flatten(1, 2), blocks.slot, query.shape[1]))
        if len(rounds) > 1:
            mass = scores.logsumexp(dim=-1).flatten(1).take_along_dim(blocks.slot, dim=1)
            masses.append(mass.unflatten(0, query.shape[:2]))
    if len(rounds) == 1:
        return outputs[0]
    shares = torch.stack(masses).softmax(dim=0)[..., None]
    return (shares * torch.stack(outputs)).sum(dim=0)


def by_group(
    group: torch.Tensor, keys: torch.Tensor, allowed: torch.Tensor | None = None
) -> Blocks:
    """Blocks whose queries all belong to one group.

    group: (rows, queries) long, 0 <= group < groups.
    keys: (rows, groups, width) long: positions of the group's keys.
    allowed: (rows, groups, width) bool: which of them count, at least one per group; None for all.
    """
    with torch.no_grad():
        rows, queries = group.shape
        count = keys.shape[1]
        block = min(BLOCK, queries)
        blocks = queries // block + min(count, queries)  # upper bound
        order, sizes = sorted_by(group, count)
        ordered = group.take_along_dim(order, dim=1)
        needed = (sizes + block - 1) // block
        ends = needed.cumsum(dim=1)
        # A query's place: its group's first block, and its rank within the group.
        shift = (ends - needed) * block - (sizes.cumsum(dim=1) - sizes)
        place = torch.arange(queries, device=group.device) + shift.gather(1, ordered)
        slot = torch.empty_like(order).scatter_(1, order, place)
        query = torch.zeros(rows, blocks * block, dtype=torch.long, device=group.device)
        query.scatter_(1, place, order)
        numbers = torch.arange(blocks, device=group.device).expand(rows, -1).contiguous()
        owner = torch.searchsorted(ends, numbers, right=True).clamp(max=count - 1)[..., None]
        if allowed is not None:
            allowed = allowed.take_along_dim(owner, dim=1)[:, :, None]
        return Blocks(
            query.unflatten(1, (blocks, block)), slot, keys.take_along_dim(owner, dim=1), allowed
        )


def sorted_by(bucket: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions (rows, length) by bucket, in stable order; and the size of each bucket.

    bucket: (rows, length) long, 0 <= bucket < count.

    One flat sort takes less than half the time of one sort per row in torch.
    """
    rows, length = bucket.shape
    row = torch.arange(rows, device=bucket.device)[:, None]
    flat = (bucket + row * count).flatten()
    order = flat.sort(stable=True).indices.unflatten(0, (rows, length)) - row * length
    sizes = torch.bincount(flat, minlength=rows * count).unflatten(0, (rows, count))
    return order, sizes
