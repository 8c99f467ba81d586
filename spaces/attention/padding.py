"""Padding: bring the real tokens of every row to its front, so a mechanism knows only lengths.

A mechanism that cuts a sequence into blocks, segments or clusters would otherwise cut it elsewhere
when it is padded more.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Rows:
    """Rows whose real tokens stand at the front.

    mask: (batch, length) as given, True for a real token.
    lengths: (batch,) real tokens of each row, at least 1: a row without any has its first position
        attended to, and zeros put over the answer.
    order: (batch, length) the position that each compacted one was taken from; None when the
        padding stood at the end already.
    """

    mask: torch.Tensor
    lengths: torch.Tensor
    order: torch.Tensor | None

    def compact(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, heads, length, d) with the real tokens of each row in front."""
        if self.order is None:
            return x
        return x.take_along_dim(self.order[:, None, :, None], dim=2)

    def restore(self, output: torch.Tensor) -> torch.Tensor:
        """(batch, heads, length, d) in the order given, with zeros at padded positions."""
        if self.order is not None:
            back = self.order.argsort(dim=1)
            output = output.take_along_dim(back[:, None, :, None], dim=2)
        return output.masked_fill(~self.mask[:, None, :, None], 0.0)


def compacted(mask: torch.Tensor) -> Rows:
    """The rows of a padding mask (batch, length)."""
    mask = mask.to(torch.bool)
    lengths = mask.sum(dim=1).clamp(min=1)
    order = None
    if bool((mask[:, 1:] & ~mask[:, :-1]).any()):  # a real token behind a padded one
        order = mask.int().argsort(dim=1, descending=True, stable=True)
    return Rows(mask, lengths, order)


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
