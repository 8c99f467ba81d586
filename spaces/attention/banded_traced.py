"""Banded attention from plain operators, for exported graphs of any length.

`banded.py` needs strided views and writes into them, which the runtimes lack. Here each block of
queries attends to whole blocks of keys: its own and those on both sides.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from paretoformer.spaces.attention.full import softmax_attention

BLOCK = 16


def traced_banded_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    window: int,
    every: slice,
    rows: int,
    lengths: torch.Tensor | None,
    causal: bool,
    scale: float,
) -> torch.Tensor:
    """Another form of `banded_attention`; the length may be symbolic."""
    length = query.shape[2]
    sides = -(-(window - 1) // BLOCK)
    dtype = torch.promote_types(query.dtype, torch.float32)
    queries = _blocks(query.to(dtype) * scale, 0)  # (batch, heads, blocks, block, d)
    near_keys, near_values = (_neighbours(each.to(dtype), sides) for each in (key, value))
    common_keys, common_values = (each[:, :, every].to(dtype) for each in (key, value))
    flat = queries.flatten(2, 3)
    common = (flat @ common_keys.mT).unflatten(2, queries.shape[2:4])
    scores = torch.cat((common, queries @ near_keys.mT), dim=-1)
    seen = _visible(length, window, sides, every, lengths, causal, query.device)
    weights = scores.masked_fill(~seen, torch.finfo(dtype).min / 2).softmax(dim=-1)
    count = common_keys.shape[2]
    output = (weights[..., count:] @ near_values).flatten(2, 3)
    output = (output + weights[..., :count].flatten(2, 3) @ common_values)[:, :, :length]
    output = output.to(value.dtype)
    if not rows or causal:
        return output
    exact = softmax_attention(query[:, :, :rows], key, value, lengths=lengths, scale=scale)
    return torch.cat((exact, output[:, :, rows:]), dim=2)


def _blocks(x: torch.Tensor, sides: int) -> torch.Tensor:
    """(batch, heads, length, d) -> (batch, heads, blocks + 2 sides, block, d); zeros around it."""
    batch, heads, length, width = x.shape
    blocks = (length + BLOCK - 1) // BLOCK
    behind = blocks * BLOCK - length
    padded = F.pad(x, (0, 0, sides * BLOCK, sides * BLOCK + behind))
    return padded.reshape(batch, heads, blocks + 2 * sides, BLOCK, width)


def _neighbours(x: torch.Tensor, sides: int) -> torch.Tensor:
    """Each block with its neighbours: (batch, heads, blocks, (2 sides + 1) block, d)."""
    laid = _blocks(x, sides)
    blocks = laid.shape[2] - 2 * sides
    shifted = [laid[:, :, first : first + blocks] for first in range(2 * sides + 1)]
    return torch.cat(shifted, dim=3)


def _visible(
    length: int,
    window: int,
    sides: int,
    every: slice,
    lengths: torch.Tensor | None,
    causal: bool,
    device: torch.device,
) -> torch.Tensor:
    """Which keys a query sees: (batch or 1, 1, blocks, block, every + near)."""
    blocks = (length + BLOCK - 1) // BLOCK
    starts = (torch.arange(blocks, device=device) * BLOCK)[:, None, None]
    query = starts + torch.arange(BLOCK, device=device)[:, None]  # (blocks, block, 1)
    near = starts + torch.arange(-sides * BLOCK, (sides + 1) * BLOCK, device=device)
    common = torch.arange(length, device=device)[every].expand(blocks, 1, -1)
    apart = near % (every.step or 1) != 0  # the others are in the global columns
    if every.stop is not None:
        apart = apart | (near >= every.stop)
    band = ((query - near).abs() < window) & (near >= 0) & (near < length) & apart
    seen = torch.cat(((common >= 0).expand(-1, BLOCK, -1), band), dim=2)[None, None]
    keys = torch.cat((common, near), dim=2)
    if causal:
        return seen & (keys <= query)
    return seen if lengths is None else seen & (keys < lengths[:, None, None, None, None])
