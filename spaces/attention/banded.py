"""Banded attention: each query attends to its neighbours and to a few global keys.

Queries are cut into blocks; each block attends to the keys within its reach in one small matrix
product. All heads are concatenated in memory, separated by gaps as wide as the reach, so the keys
of all blocks are one strided view without copies. On AVX-512, batched products with a softmax
between them take half the time of the fused sdpa kernel, which is made for long rows. FlexAttention
could take the pattern as a block mask, but on a CPU it compiles C++ for every shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch

from paretoformer.spaces.attention.banded_traced import traced_banded_attention
from paretoformer.spaces.attention.full import softmax_attention
from paretoformer.spaces.attention.padding import tracing

BLOCK = 16
"""Queries per block. Of 8 to 64 the fastest for windows of 16 to 64 tokens, on AVX-512."""


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
    every: positions of the keys that all queries attend to.
    rows: the first `rows` queries attend to every key; not with `causal`.
    lengths: (batch,) real tokens of each row, padded at its end.

    Scores are computed in float32 at least: float16 may overflow, bfloat16 loses digits. This costs
    speed on a GPU in half precision.
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
    if lengths is not None and not causal:  # padding is at the end
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
    """Number of scores per head, including those of the gap; `full` needs length²."""
    return (length + window) * (BLOCK + 2 * (window - 1) + every)


@dataclass(frozen=True)
class _Layout:
    """The layout of all heads, concatenated and cut into blocks.

    At least `reach` empty places follow each head, up to the end of a block. So a block reads only
    zeros beyond its head; the empty blocks cost little.
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
        """Blocks of one head, including those of its gap."""
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
        """0 where a query sees a key, else `_hidden`: (blocks, block, every + span)."""
        columns = self.columns()
        rows = self._starts() + torch.arange(self.block, device=self.device)[:, None]
        near = columns[:, :, len(self.every) :]
        band = ((rows - near).abs() <= self.reach) & (near >= 0) & (near < self.length)
        band = band & ~torch.isin(near, self._every())  # those are in the global columns
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
    """The score bias of a hidden key.

    Finite, because padded queries and queries in a gap may see no key: -inf would turn their
    weights and all gradients into NaN.
    """
    return torch.finfo(dtype).min / 2


@lru_cache(maxsize=16)
def _bias(layout: _Layout, dtype: torch.dtype) -> torch.Tensor:
    """`layout.bias()`, cached: at 512 tokens computing it takes a fifth of the attention's time.

    Built outside inference mode, so that a later training step can use it. All layers and heads
    share this constant (0.2 MB at 512 tokens); it counts neither as a weight nor as activation.
    """
    with torch.inference_mode(False):
        return layout.bias(dtype)
