"""Segments: a sequence cut into runs of neighbours, each replaced by its mean."""

from __future__ import annotations

import torch

from paretoformer.spaces.attention.padding import real


def segment_means(
    x: torch.Tensor, count: int, lengths: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The means of `count` segments, and the number of tokens in each.

    A row of n real tokens is cut into min(n, count) segments whose sizes differ by at most one,
    larger ones first, independent of its padding.

    x: (batch, heads, length, d), padded at the end of each row.
    lengths: (batch,) real tokens of each row; None when every token is real.

    Returns means (batch, heads, count, d) and sizes (batch, 1, 1, count), 0 for a segment that a
    short row lacks; (1, 1, 1, count) without `lengths`.
    """
    length = x.shape[2]
    if lengths is None:
        count = min(count, length)
        long = -(-length // count)
        few = length - count * (long - 1) if long > 1 else length
        cut = long * few
        parts = [x[:, :, :cut].unflatten(2, (few, long)).mean(dim=3)]
        sizes = x.new_full((count,), float(long))
        if few < count:
            parts.append(x[:, :, cut:].unflatten(2, (count - few, long - 1)).mean(dim=3))
            sizes[few:] -= 1
        means = parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)
        return means, sizes[None, None, None]
    size = (lengths[:, None] + count - 1) // count
    larger = torch.where(size > 1, lengths[:, None] - count * (size - 1), lengths[:, None])
    position = torch.arange(length, device=x.device)[None]
    behind = position - size * larger  # distance from the end of the larger segments
    segment = torch.where(behind < 0, position // size, larger + behind // (size - 1).clamp(min=1))
    member = segment[:, None] == torch.arange(count, device=x.device)[:, None]
    member = (member & real(lengths, length)[:, None]).to(x.dtype)  # (batch, count, length)
    sizes = member.sum(dim=-1)
    means = (member / sizes.clamp(min=1)[..., None])[:, None] @ x
    return means, sizes[:, None, None]
