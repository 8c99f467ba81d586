"""Banded attention: each query meets its neighbours and a few keys that everyone meets.

Queries are cut into blocks, and each block meets the keys within its reach in one small matrix
product. All heads lie behind one another in memory with a gap as wide as the reach, so the keys of
all blocks are one strided view, and none is copied twice. On AVX-512, batched products with a
softmax between them take half the time of the fused kernel of sdpa, which is made for long rows.
FlexAttention would take the same pattern as a block mask; on a CPU it compiles C++ on the target
for every shape, so it is not used.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch

from paretoformer.spaces.attention.banded_traced import traced_banded_attention
from paretoformer.spaces.attention.full import softmax_attention
from paretoformer.spaces.attention.padding import tracing

BLOCK = 16
"""Queries of one block: of 8 to 64 the fastest at windows of 16 to 64 tokens, on AVX-512."""


def banded_attention(
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
    """Token i attends to token j when |i - j| < window, or j is in `every`, or i < rows.

    query, key, value: (batch, heads, length, head_dim).
    every: positions whose keys each query meets, from the first one.
    rows: how many queries, from the first one, meet every key; not with `causal`.
    lengths: (batch,) real tokens of each row, padded at its end.

    Scores are computed in float32 at least: in float16 they may exceed the range, in bfloat16 they
    lose digits. That forgoes what a GPU does faster in half precision.
    """
    if tracing():
        return traced_banded_attention(
            query,
            key,
            value,
            window=window,
            every=every,
            rows=rows,
            lengths=lengths,
            causal=causal,
            scale=scale,
        )
    batch, heads, length, _ = query.shape
    common = range(*every.indices(length))
    layout = _Layout(length, min(window, length) - 1, common, causal, query.device)
    shared, reach = len(common), layout.reach
    queries = layout.behind_one_another(query) * scale
    keys = layout.behind_one_another(key, before=shared + reach, after=reach)
    values = layout.behind_one_another(value, before=reach, after=reach)
    near = values.unfold(0, layout.span, layout.block).mT  # (all blocks, span, d)
    # Extra columns in front for the scores of the global keys.
    wide = keys.unfold(0, shared + layout.span, layout.block).mT
    common_key, common_value = (
        each[:, :, every].flatten(0, 1).to(queries.dtype) for each in (key, value)
    )
    scores = queries.unflatten(0, (-1, layout.block)) @ wide.mT
    by_head = scores.view(batch * heads, layout.places, -1)
    by_head[..., :shared] = queries.unflatten(0, (-1, layout.places)) @ common_key.mT
    by_block = scores.view(batch, heads, layout.blocks, layout.block, -1)
    by_block += _bias(layout, scores.dtype)
    if lengths is not None and not causal:  # no padding stands before a real token
        padded = layout.columns() >= lengths[:, None, None, None]
        by_block.masked_fill_(padded[:, None], _hidden(scores.dtype))
    weights = scores.softmax(dim=-1)
    output: torch.Tensor = weights[..., shared:] @ near
    output = torch.baddbmm(
        output.view(*by_head.shape[:2], -1),
        weights.view(*by_head.shape)[..., :shared],
        common_value,
    )
    output = output.view(batch, heads, layout.places, -1)[:, :, :length]
    if rows and not causal:
        exact = softmax_attention(query[:, :, :rows], key, value, lengths=lengths, scale=scale)
        output[:, :, :rows] = exact
    return output.to(value.dtype)


def score_count(length: int, window: int, every: int = 0) -> int:
    """How many scores a head needs, those of the gap behind it with them; `full` needs length²."""
    return (length + window) * (BLOCK + 2 * (window - 1) + every)


@dataclass(frozen=True)
class _Layout:
    """How the tokens of all heads lie behind one another, cut into blocks.

    Between two heads there is a gap of at least `reach` empty places, and it ends with a block; so
    what a block reaches beyond its head is empty, and the empty blocks cost a little work.
    """

    length: int
    reach: int
    every: range
    causal: bool
    device: torch.device

    @property
    def block(self) -> int:
        return min(BLOCK, self.length)

    @property
    def blocks(self) -> int:
        """Of one head, with those of the gap behind it."""
        return -(-self.length // self.block) + -(-self.reach // self.block)

    @property
    def places(self) -> int:
        return self.blocks * self.block

    @property
    def span(self) -> int:
        """Keys near a block."""
        return self.block + 2 * self.reach

    def behind_one_another(
        self, x: torch.Tensor, *, before: int = 0, after: int = 0
    ) -> torch.Tensor:
        """(batch, heads, length, d) -> (before + batch * heads * places + after, d)."""
        batch, heads, length, width = x.shape
        count = batch * heads * self.places
        dtype = torch.promote_types(x.dtype, torch.float32)
        laid = torch.zeros(before + count + after, width, dtype=dtype, device=x.device)
        laid[before : before + count].view(batch, heads, -1, width)[:, :, :length] = x
        return laid

    def columns(self) -> torch.Tensor:
        """The position of the key of each score: (blocks, 1, every + span)."""
        starts = self._starts()
        near = torch.arange(self.span, device=self.device) - self.reach
        return torch.cat((self._every().expand(len(starts), 1, -1), starts + near), dim=2)

    def bias(self, dtype: torch.dtype) -> torch.Tensor:
        """0 where a query sees a key: (blocks, block, every + span)."""
        columns = self.columns()
        rows = self._starts() + torch.arange(self.block, device=self.device)[:, None]
        near = columns[:, :, len(self.every) :]
        band = ((rows - near).abs() <= self.reach) & (near >= 0) & (near < self.length)
        band = band & ~torch.isin(near, self._every())  # those are there already
        visible = torch.cat((band.new_ones(*band.shape[:2], len(self.every)), band), dim=2)
        if self.causal:
            visible = visible & (columns <= rows)
        bias = torch.zeros(visible.shape, dtype=dtype, device=self.device)
        return bias.masked_fill(~visible, _hidden(dtype))

    def _every(self) -> torch.Tensor:
        return torch.tensor(self.every, dtype=torch.long, device=self.device)

    def _starts(self) -> torch.Tensor:
        """(blocks, 1, 1)."""
        return torch.arange(0, self.places, self.block, device=self.device)[:, None, None]


def _hidden(dtype: torch.dtype) -> float:
    """Added to the score of a key that is not seen.

    Finite, for a padded query, or one in a gap, may see none: infinity would make its weights NaN,
    and the gradients of everyone.
    """
    return torch.finfo(dtype).min / 2


@lru_cache(maxsize=16)
def _bias(layout: _Layout, dtype: torch.dtype) -> torch.Tensor:
    """`layout.bias()`, made once: at 512 tokens making it costs a fifth of the attention.

    Kept outside inference mode, so that a later training step may use it too. A constant of 0.2 MB
    at 512 tokens that all layers and heads share, it counts neither as a weight nor as activation.
    """
    with torch.inference_mode(False):
        return layout.bias(dtype)
