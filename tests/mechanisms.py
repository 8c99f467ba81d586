"""Settings for the laws of attention mechanisms, and the definitions they are compared with."""

from __future__ import annotations

from collections.abc import Callable

import torch

from paretoformer.spaces import AttentionChoice
from paretoformer.spaces.attention import Attention, build

Of = AttentionChoice.of

EXACT: dict[str, Callable[[int], AttentionChoice] | None] = {
    "full": lambda length: Of("full"),
    "window": lambda length: Of("window", window=length, global_tokens=1),
    "strided": lambda length: Of("strided", stride=1, window=2, global_tokens=1),
    "lowrank": lambda length: Of("lowrank", rank=length),
    "nystrom": lambda length: Of("nystrom", landmarks=length),
    "clustered": lambda length: Of("clustered", clusters=length, top_keys=0),
    "routing": lambda length: Of("routing", clusters=1, global_tokens=1),
    "lsh": lambda length: Of("lsh", buckets=1, rounds=1, global_tokens=1, seed=0),
    "random_features": None,
    "linear": None,
}
"""The setting that equals full attention on `length` tokens; None: there is none."""

CHEAP: dict[str, list[AttentionChoice]] = {
    "full": [Of("full")],
    "window": [
        Of("window", window=3, global_tokens=1),
        Of("window", window=1, global_tokens=0),
        Of("window", window=40, global_tokens=3),
    ],
    "strided": [
        Of("strided", stride=4, window=3, global_tokens=1),
        Of("strided", stride=7, window=1, global_tokens=0),
    ],
    "lowrank": [Of("lowrank", rank=4), Of("lowrank", rank=1)],
    "nystrom": [Of("nystrom", landmarks=4), Of("nystrom", landmarks=1)],
    "clustered": [
        Of("clustered", clusters=4, top_keys=0),
        Of("clustered", clusters=3, top_keys=5),
    ],
    "routing": [
        Of("routing", clusters=3, global_tokens=1),
        Of("routing", clusters=5, global_tokens=0),
    ],
    "lsh": [
        Of("lsh", buckets=4, rounds=1, global_tokens=1, seed=0),
        Of("lsh", buckets=6, rounds=2, global_tokens=0, seed=1),
    ],
    "random_features": [
        Of("random_features", features=16, seed=0),
        Of("random_features", features=3, seed=1),
    ],
    "linear": [Of("linear")],
}
"""Settings that save work on short texts."""


def made(choice: AttentionChoice, head_dim: int) -> Attention:
    return build(choice, head_dim)


def tensors(
    batch: int, heads: int, length: int, dim: int, dtype: torch.dtype = torch.float32
) -> list[torch.Tensor]:
    """Query, key and value, strided as a model passes them."""
    generator = torch.Generator().manual_seed(length * 31 + heads)
    shape = (batch, length, heads, dim)
    return [torch.randn(shape, generator=generator).transpose(1, 2).to(dtype) for _ in range(3)]


def definition(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    mask: torch.Tensor | None = None,
    causal: bool = False,
    seen: torch.Tensor | None = None,
    scale: float | None = None,
) -> torch.Tensor:
    """softmax(scale · Q Kᵀ) V with its dense matrix; zeros for a padded query.

    seen: bool, broadcast to (batch, heads, queries, keys): which keys a query meets at all.
    """
    scores = query @ key.transpose(-1, -2) * (scale or query.shape[-1] ** -0.5)
    length = query.shape[-2]
    visible = torch.ones(length, length, dtype=torch.bool)
    visible = visible.tril() if causal else visible
    if seen is not None:
        visible = visible & seen
    if mask is not None:
        visible = visible & mask[:, None, None, :]
    scores = scores.masked_fill(~visible, float("-inf"))
    output = torch.nan_to_num(scores.softmax(-1)) @ value
    return output if mask is None else output * mask[:, None, :, None]
