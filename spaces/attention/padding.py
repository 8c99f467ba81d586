"""Padding: move the real tokens of every row to its front, so a mechanism needs only lengths.

Otherwise padding would shift the blocks, segments or clusters into which a mechanism cuts a row.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


def tracing() -> bool:
    """Whether torch is tracing the code, to export or compile it.

    A graph serves every length and mask, so traced code must not branch on the values of a tensor,
    nor on a length unless both branches are right.
    """
    return torch.compiler.is_compiling()


@dataclass(frozen=True)
class Rows:
    """Rows whose real tokens are at the front.

    mask: (batch, length), True for a real token.
    lengths: (batch,) real tokens of each row, at least 1: a row without any attends to its first
        position, and its output is set to zero.
    order: (batch, length) the original position of each compacted token; None when the padding was
        at the end already.
    back: (batch, length) the inverse of `order`.
    """

    mask: torch.Tensor
    lengths: torch.Tensor
    order: torch.Tensor | None = None
    back: torch.Tensor | None = None

    def compact(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, heads, length, d) with the real tokens of each row in front."""
        return x if self.order is None else _moved(x, self.order)

    def restore(self, output: torch.Tensor) -> torch.Tensor:
        """(batch, heads, length, d) in the original order, with zeros at padded positions."""
        if self.back is not None:
            output = _moved(output, self.back)
        return output.masked_fill(~self.mask[:, None, :, None], 0.0)


def compacted(mask: torch.Tensor) -> Rows:
    mask = mask.to(torch.bool)
    lengths = mask.sum(dim=1).clamp(min=1)
    # Tokens move only if a real one follows a padded one.
    if not tracing() and not bool((mask[:, 1:] & ~mask[:, :-1]).any()):
        return Rows(mask, lengths)
    # Real tokens first, then padded ones, in their order.
    back = torch.where(mask, mask.cumsum(1) - 1, mask.sum(1, True) + (~mask).cumsum(1) - 1)
    positions = torch.arange(mask.shape[1], device=mask.device).expand_as(mask)
    return Rows(mask, lengths, torch.zeros_like(back).scatter(1, back, positions), back)


def _moved(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """x: (batch, heads, length, d), index: (batch, length) -> x at these positions."""
    if not tracing():
        return x.take_along_dim(index[:, None, :, None], dim=2)
    # Whole tokens, as in a model's memory layout: the runtimes copy them at once.
    batch, heads, length, width = x.shape
    start = torch.arange(batch, device=x.device)[:, None] * length
    tokens = x.transpose(1, 2).reshape(batch * length, heads * width)
    moved = tokens.index_select(0, (index + start).flatten())
    return moved.view(batch, length, heads, width).transpose(1, 2)


def real(lengths: torch.Tensor, length: int) -> torch.Tensor:
    """(batch, length) bool, True for a real token, of rows padded at their end."""
    return torch.arange(length, device=lengths.device) < lengths[:, None]


def flat_rows(
    lengths: torch.Tensor | None, batch: int, heads: int, length: int, device: torch.device
) -> torch.Tensor:
    """(batch * heads,) real tokens of each row of (batch, heads, length, d) flattened once."""
    if lengths is None:
        return torch.full((batch * heads,), length, device=device)
    return lengths.repeat_interleave(heads)
