"""Gather whole vectors by position.

`index_select` on flat vectors copies whole vectors: 7x faster than indexing or `take_along_dim`,
which look up every number.
"""

from __future__ import annotations

import torch


def take(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """x: (rows, length, d), index: (rows, ...) positions -> (rows, ..., d)."""
    starts = torch.arange(len(x), device=x.device) * x.shape[1]
    return _select(x.flatten(0, 1), starts, index)


class Vectors:
    """The vectors of a (batch, heads, length, d) tensor, without a copy in another layout."""

    def __init__(self, x: torch.Tensor) -> None:
        batch, heads, length, dim = x.shape
        row = torch.arange(batch * heads, device=x.device)
        if x.is_contiguous():
            self._flat, self._starts, self._step = x.flatten(0, 2), row * length, 1
        else:  # as a model passes them: (batch, length, heads, d), transposed
            self._flat = x.transpose(1, 2).reshape(-1, dim)
            self._starts, self._step = row // heads * length * heads + row % heads, heads

    def take(self, index: torch.Tensor) -> torch.Tensor:
        """index: (rows, ...) positions -> (rows, ..., d)."""
        return _select(self._flat, self._starts, index * self._step)


def put_back(x: torch.Tensor, slot: torch.Tensor, heads: int) -> torch.Tensor:
    """x: (batch * heads, places, d), slot: (batch * heads, length) -> (batch, heads, length, d).

    In memory (batch, length, heads, d), as a model needs it.
    """
    row = torch.arange(len(x), device=x.device)[:, None]
    index = (slot + row * x.shape[1]).unflatten(0, (-1, heads)).transpose(1, 2)
    flat = x.flatten(0, 1).index_select(0, index.flatten())
    back: torch.Tensor = flat.unflatten(0, index.shape).transpose(1, 2)
    return back


def _select(flat: torch.Tensor, starts: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """flat: (vectors, d), starts: (rows,), index: (rows, ...) from there -> (rows, ..., d)."""
    index = index + starts.reshape(-1, *(1,) * (index.ndim - 1))
    selected: torch.Tensor = flat.index_select(0, index.flatten()).unflatten(0, index.shape)
    return selected
