"""Banded attention: each query meets its neighbours and a few keys that everyone meets.

Queries are cut into blocks, and each block meets only the keys within its reach, gathered side by
side. FlexAttention would take the same pattern as a block mask; on a CPU it compiles C++ on the
target for every shape, so it is not used.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch.nn import functional as F

from paretoformer.spaces.attention.full import softmax_attention


def banded_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    window: int,
    every: range,
    rows: int,
    lengths: torch.Tensor | None,
    causal: bool,
    scale: float,
) -> torch.Tensor:
    """Token i attends to token j when |i - j| < window, or j is in `every`, or i < rows.

    query, key, value: (batch, heads, length, head_dim).
    every: positions whose keys each query meets.
    rows: how many queries, from the first one, meet every key; not with `causal`.
    lengths: (batch,) real tokens of each row, padded at its end.
    """
    batch, heads, length, head_dim = query.shape
    reach = min(window, length) - 1
    # Blocks of 32 to 64 queries were fastest at every window on AVX2, 512 and 4,096 tokens.
    block = min(max(window, 32), 64, length)
    blocks = -(-length // block)
    padded = blocks * block
    everywhere = slice(every.start, every.stop, every.step)

    def by_block(x: torch.Tensor) -> torch.Tensor:
        """(batch, heads, length, d) -> (batch * blocks, heads, every + span, d)."""
        near = F.pad(x, (0, 0, reach, reach + padded - length))
        near = near.unfold(2, block + 2 * reach, block).transpose(-1, -2)
        shared = x[:, :, None, everywhere].expand(-1, -1, blocks, -1, -1)
        return torch.cat((shared, near), dim=3).transpose(1, 2).flatten(0, 1)

    queries = F.pad(query, (0, 0, 0, padded - length))
    queries = queries.unflatten(2, (blocks, block)).transpose(1, 2).flatten(0, 1)
    layout = _Layout(length, block, reach, every, causal, query.device)
    # A compiler keeps no cache of ours; it folds what is constant by itself.
    visible = layout.visible() if torch.compiler.is_compiling() else _visible(layout)
    seen = visible.expand(batch, -1, -1, -1, -1)
    if lengths is not None and not causal:  # no padding stands before a real token
        seen = seen & (layout.columns() < lengths[:, None, None, None])[:, :, None]
    output = F.scaled_dot_product_attention(
        queries, by_block(key), by_block(value), attn_mask=seen.flatten(0, 1), scale=scale
    )
    output = output.view(batch, blocks, heads, block, head_dim).transpose(1, 2)
    output = output.reshape(batch, heads, padded, head_dim)[:, :, :length]
    if causal or not rows:
        return output
    exact = softmax_attention(query[:, :, :rows], key, value, lengths=lengths, scale=scale)
    return torch.cat((exact, output[:, :, rows:]), dim=2)


@dataclass(frozen=True)
class _Layout:
    """How the queries are cut into blocks, and what each block reaches."""

    length: int
    block: int
    reach: int
    every: range
    causal: bool
    device: torch.device

    def columns(self) -> torch.Tensor:
        """The position of each gathered key: (blocks, 1, every + span)."""
        starts = self._starts()
        near = torch.arange(self.block + 2 * self.reach, device=self.device) - self.reach
        return torch.cat((self._every().expand(len(starts), 1, -1), starts + near), dim=2)

    def visible(self) -> torch.Tensor:
        """Which gathered key each query sees: (1, blocks, 1, block, every + span)."""
        columns = self.columns()
        rows = (self._starts() + torch.arange(self.block, device=self.device)).transpose(1, 2)
        near = columns[:, :, len(self.every) :]
        band = ((rows - near).abs() <= self.reach) & (near >= 0) & (near < self.length)
        band = band & ~torch.isin(near, self._every())  # those are there already
        visible = torch.cat((band.new_ones(*band.shape[:2], len(self.every)), band), dim=2)
        if self.causal:
            visible = visible & (columns <= rows)
        return visible[None, :, None]

    def _every(self) -> torch.Tensor:
        return torch.tensor(self.every, dtype=torch.long, device=self.device)

    def _starts(self) -> torch.Tensor:
        """(blocks, 1, 1)."""
        return torch.arange(0, self.length, self.block, device=self.device)[:, None, None]


@lru_cache(maxsize=32)
def _visible(layout: _Layout) -> torch.Tensor:
    """`layout.visible()`, made once: at 512 tokens making it costs a fifth of the attention.

    Kept outside inference mode, so that a later training step may use it too.
    """
    with torch.inference_mode(False):
        return layout.visible()
